// What a model's parameters are to training.
#pragma once

#include <vector>

#include "mdm/models/unet.h"
#include "mdm/training/parameter_arena.h"
#include "mdm/training/sources.h"

namespace mdm {

// Those of the model and of the text encoder that is trained along ("text_encoder." before their names, and
// always float32).
std::vector<ArenaParameter> arena_parameters(const UNet& model, const TextSource* text, bool inner_predictions);

// The tensors whose names begin with "text_encoder.", without that; or the others.
std::vector<NamedTensor> text_encoder_tensors(const std::vector<NamedTensor>& all);
std::vector<NamedTensor> model_tensors(const std::vector<NamedTensor>& all);

}  // namespace mdm
