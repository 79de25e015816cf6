// The loss on samples that are kept out of training.
#pragma once

#include <array>
#include <cstdint>

#include "mdm/config/config.h"
#include "mdm/diffusion/loss.h"
#include "mdm/models/unet.h"
#include "mdm/training/parameter_arena.h"
#include "mdm/training/sources.h"

namespace mdm {

struct ValidationLoss {
  double mean = 0;
  std::array<double, 4> quartiles{};  // by time: nearly no noise first
};

// Of the averaged weights, over `batches` batches from the first one of `data` on. Sample i has a time out of
// quartile i % 4 and noise of its own, the same each time, so that values can be compared. Without VDM weights.
ValidationLoss validate(const Config& config, int64_t batches, UNet& model, ParameterArena& arena, BatchSource& data,
                        TextSource* text, at::Device device);

}  // namespace mdm
