// GroupNorm with modulation and SiLU over channels_last data. Forward in two passes over memory: one for the
// statistics, one that reads, normalises, activates and writes. Backward in two: one for the sums that the
// parameters' gradients are made of, one for the input's gradient; both compute the activation again
// instead of having it kept.
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

// What is normalised: (B, positions, C), contiguous; or two that would lie side by side in C, which so needs no copy.
template <typename T>
struct GroupNormInput {
  const T* first = nullptr;   // (B, positions, first_channels)
  const T* second = nullptr;  // (B, positions, C - first_channels), nullptr where first has all
  int64_t first_channels = 0;
};

// y: (B, positions, C), contiguous. `statistics` (B, groups, 2) receives mean and 1 / deviation.
void group_norm_channels_last(const GroupNormArguments& arguments, const GroupNormInput<float>& x, float* y,
                              double* statistics);
// The same for bfloat16 bits; statistics and arithmetic in float32.
void group_norm_channels_last_bf16(const GroupNormArguments& arguments, const GroupNormInput<uint16_t>& x, uint16_t* y,
                                   double* statistics);

struct GroupNormGradients {
  float* weight = nullptr;  // (C)
  float* bias = nullptr;    // (C)
  float* scale = nullptr;   // (B, C), with arguments.scale only
  float* shift = nullptr;   // (B, C), with arguments.scale only
};

// From the gradient dy of y to dx (all like x) and those of the parameters. `statistics`: what the forward
// pass of the same x gave.
void group_norm_backward_channels_last(const GroupNormArguments& arguments, const double* statistics, const float* x,
                                       const float* dy, float* dx, const GroupNormGradients& gradients);
void group_norm_backward_channels_last_bf16(const GroupNormArguments& arguments, const double* statistics,
                                            const uint16_t* x, const uint16_t* dy, uint16_t* dx,
                                            const GroupNormGradients& gradients);

}  // namespace mdm::ops
