// What the tests of this room share: tiny models with random weights, and a look at error texts.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "mdm/config/diffusion_config.h"
#include "mdm/config/model_config.h"
#include "mdm/core/error.h"
#include "mdm/models/unet.h"

namespace mdm::testing {

constexpr int64_t kTextWidth = 12;
constexpr PredictionType kPredictionTypes[] = {PredictionType::kDdpm, PredictionType::kDdim,
                                               PredictionType::kVPrediction, PredictionType::kX0};

/// A config of `levels` levels, each twice as large as the next; no attention, one micro item.
inline ModelConfig tiny_config(size_t levels) {
  ModelConfig model;
  model.levels.clear();
  for (size_t i = 0; i < levels; ++i) {
    UNetConfig level;
    const bool innermost = i + 1 == levels;
    level.num_resnets_per_resolution = {1};
    level.temporal_dim = 16;
    level.attention_levels = {};
    level.num_attention_layers = {1};
    level.resolution_channels = {8, 8};
    level.resnet_config.num_groups_norm = 4;
    level.micro_conditioning = "scale:64";
    level.skip_mid_blocks = true;
    level.skip_cond_emb = !innermost;
    level.nesting = i > 0;
    model.levels.push_back(level);
  }
  return model;
}

/// With weights that are nowhere zero.
inline std::shared_ptr<UNet> tiny_model(size_t levels, int64_t text_dim = kTextWidth) {
  auto model = make_model(tiny_config(levels), text_dim);
  const at::Generator generator = make_generator(17);
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : model->parameters()) parameter.normal_(0, 0.3, generator);
  model->eval();
  return model;
}

inline TextEmbedding random_text(int64_t rows, uint64_t seed = 5) {
  TextEmbedding text;
  text.lm_outputs = at::randn({rows, 4, kTextWidth}, make_generator(seed), at::TensorOptions());
  text.lm_mask = at::ones({rows, 4});
  return text;
}

inline at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed = 3, at::ScalarType type = at::kFloat) {
  return at::randn(shape, make_generator(seed), at::TensorOptions().dtype(type));
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() ? (a - b).abs().max().item<double>() : INFINITY;
}

/// Runs `action`, which must throw ErrorType with a text that holds `part`.
template <typename ErrorType = ConfigError, typename Action>
void expect_error(const Action& action, const std::string& part) {
  try {
    action();
  } catch (const ErrorType& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    return;
  } catch (const std::exception& error) {
    FAIL() << "an error of another type: " << error.what();
  }
  FAIL() << "no error; expected: " << part;
}

}  // namespace mdm::testing
