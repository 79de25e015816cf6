// A checkpoint as sampling needs it: the weights of one model, and the config that lies beside them.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/config/config.h"
#include "mdm/models/unet.h"

namespace mdm {

// Opens a file of weights; `ema` chooses where it holds averaged and plain ones.
TensorFile open_weights(const std::filesystem::path& path, bool ema);

// The config inside a checkpoint as config_from_json() reads it, or "" when there is none.
std::string config_json_of(const TensorFile& file);

// Width of the text's features that the weights were trained with; -1 without text. Reads the shape of
// the innermost level's first layer after the text.
int64_t text_width_of(const TensorFile& file, size_t levels);

// Fills the model. CheckpointError lists every name and shape in which file and model differ.
// allow_partial: what fits is copied, the rest reported in the log; fill the model before.
// compare_only: no value is read or written.
void load_weights(const TensorFile& file, UNet& model, bool allow_partial = false, bool compare_only = false);

// Loads a model for the CPU and packs it for pictures of this size, each weight straight from the mapping into its
// final layout where it has its final type there.
void load_packed(const TensorFile& file, UNet& model, int64_t rows, int64_t height, int64_t width);

}  // namespace mdm
