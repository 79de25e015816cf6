// GroupNorm with modulation and SiLU over channels_last data, in two passes over memory: one for the
// statistics, one that reads, normalises, activates and writes. Inference only.
#pragma once

#include <cstdint>

namespace mdm::ops {

struct GroupNormArguments {
  int64_t batch = 0, positions = 0, channels = 0, groups = 0;
  double epsilon = 0;
  const float* weight = nullptr;  // (C)
  const float* bias = nullptr;    // (C)
  const float* scale = nullptr;   // (B, C) or nullptr: y = norm * (1 + scale) + shift
  const float* shift = nullptr;   // (B, C) or nullptr
  bool silu = false;
};

// x and y: (B, positions, C), contiguous.
void group_norm_channels_last(const GroupNormArguments& arguments, const float* x, float* y);
// The same for bfloat16 bits; statistics and arithmetic in float32.
void group_norm_channels_last_bf16(const GroupNormArguments& arguments, const uint16_t* x, uint16_t* y);

}  // namespace mdm::ops
