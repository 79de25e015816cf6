// The optimizer step and the sum of squares as ATen calls over slices: they make temporaries as large as what they
// work on, and all parameters at once would double the memory of a step.
#pragma once

#include <cstdint>

#include "mdm/ops/optimizer.h"

namespace mdm::ops {

constexpr int64_t kCompositionSlice = int64_t{1} << 24;  // numbers

void adamw_ema_step_composition(const OptimizerBuffers& buffers, const AdamSettings& settings, int64_t slice);
double sum_of_squares_composition(const at::Tensor& values, int64_t slice);

}  // namespace mdm::ops
