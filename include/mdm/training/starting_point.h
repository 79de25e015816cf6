// The weights that a fresh training starts from.
#pragma once

#include <cstdint>

#include "mdm/config/config.h"
#include "mdm/models/unet.h"
#include "mdm/text/text_encoder.h"

namespace mdm {

// pretrained_vision_file if there is one, else fresh weights with what initialize_inner_with_pretrained names in
// the inner levels. A text encoder that is trained along is taken from the same files where they hold one, and
// drawn fresh otherwise. Strict: CheckpointError lists all names and shapes that differ.
void set_starting_point(const Config& config, uint64_t seed, UNet& model, TextEncoder* text);

}  // namespace mdm
