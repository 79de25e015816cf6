// A case's model: config.yaml and weights.safetensors of its folder.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "golden_runner/runner.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/config/config.h"
#include "mdm/models/unet.h"
#include "mdm/text/text_embedding.h"

namespace mdm::golden {

struct LoadedModel {
  Config config;
  std::shared_ptr<UNet> model;  ///< evaluation mode, weights loaded
};

/// The config of a case. `text_dim` of its model is levels[0].conditioning_feature_dim.
Config load_case_config(const std::filesystem::path& yaml);

/// Builds the model of `folder` and copies its weights; throws when a name or shape does not fit.
LoadedModel load_case_model(const std::filesystem::path& folder);

/// Copies all tensors of `file` into the parameters of the same name.
void copy_weights(const TensorFile& file, UNet& model);

/// A tensor of the file when it is there (a copy that may be written to).
at::Tensor optional_tensor(const TensorFile& file, const std::string& name);

/// lm_outputs and lm_mask of an inputs file, every row attending to all positions; nothing without text.
std::optional<TextEmbedding> case_text(const TensorFile& inputs);

/// All tensors named `micros.NAME`.
MicroValues case_micros(const TensorFile& inputs);

/// Compares gradients by the rule of the golden README: a share of the tensor's largest element plus an
/// absolute part for the rounding noise.
void compare_gradients(const UNet& model, const TensorFile& expected, const nlohmann::json& tolerance, Report& report);

}  // namespace mdm::golden
