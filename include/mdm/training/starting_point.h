// The weights that a fresh training starts from.
#pragma once

#include <cstdint>

#include "mdm/config/config.h"
#include "mdm/models/unet.h"
#include "mdm/text/text_encoder.h"

namespace mdm {

/// Fills the model: from pretrained_vision_file if there is one, else fresh weights drawn by `seed`, with what
/// initialize_inner_with_pretrained names in the inner levels. A text encoder that is trained along (JointTextEncoder)
/// is taken from the same files where they hold one, and drawn fresh otherwise; `text` may be null.
/// Strict: CheckpointError lists all names and shapes that differ.
void set_starting_point(const Config& config, uint64_t seed, UNet& model, TextEncoder* text);

}  // namespace mdm
