// One step of sampling as one operation: guidance, x_0 from what the network predicts, its threshold, and the next x_t.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mdm/ops/sampler_rule.h"

namespace mdm::ops {

/// Where the noise of a step comes from when levels have none of their own: number n of image i at level k is that of
/// random_normal() at {seed i, step, stream kStep, layer k}.
struct StepNoise {
  at::Tensor seeds;  ///< (B) int64 (the bits of uint64), where x_t is; undefined: there is none
  uint64_t step = 0;
};

/// One level. x_next = next_x_0 x_0 + next_x_t x_t + next_noise noise.
struct SamplerLevel {
  at::Tensor x_t;         ///< (B, C, H, W)
  at::Tensor prediction;  ///< the same; with guidance (2 B, C, H, W): B unconditional rows, then B conditional ones
  double gamma = 1;       ///< share of the signal in x_t, [0, 1]
  double image_scale = 1;
  double next_x_0 = 0, next_x_t = 0, next_noise = 0;
  at::Tensor noise;  ///< (B, C, H, W), or undefined
};

struct SteppedLevel {
  at::Tensor x_0;
  at::Tensor x_next;  ///< undefined unless rule.advances
};

/// Guided prediction: unconditional + guidance (conditional - unconditional). On CUDA one launch for all levels (with a
/// quantile: further ones), and nothing waits. Results are contiguous float32. Other types, and where gradients are
/// recorded: the composition. The same bits on CPU and GPU, whatever the threads and whatever an image is batched with.
std::vector<SteppedLevel> sampler_step(const std::vector<SamplerLevel>& levels, const SamplerRule& rule,
                                       const StepNoise& noise = {});

/// Its definition by ATen.
std::vector<SteppedLevel> sampler_step_composition(const std::vector<SamplerLevel>& levels, const SamplerRule& rule,
                                                   const StepNoise& noise = {});

/// The threshold alone, on x_0 (B, C, H, W) of any type. An example with a NaN becomes NaN where a quantile is asked
/// for.
at::Tensor threshold(const at::Tensor& x_0, const ThresholdRule& rule, double image_scale);

}  // namespace mdm::ops
