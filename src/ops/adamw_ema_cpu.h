// The optimizer step and the sum of squares on the CPU, vectorised and parallel.
#pragma once

#include <cstdint>

namespace mdm::ops {

struct AdamPointers {
  float* weights = nullptr;
  const float* gradients = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  float* ema = nullptr;         // or nullptr
  uint16_t* compute = nullptr;  // bfloat16 bits, or nullptr
};

struct AdamNumbers {
  float gradient_factor, blend1, beta2, blend2, shrink, step_size, root_scale, eps, ema_blend;
};

void adamw_ema_cpu(const AdamPointers& pointers, const AdamNumbers& numbers, int64_t count);
double sum_of_squares_cpu(const float* values, int64_t count);

}  // namespace mdm::ops
