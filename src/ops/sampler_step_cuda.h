// The sampling step on a CUDA device: the arithmetic of sampler_step_cpu.h, to the bit. Nothing here waits for the
// device.
#pragma once

#include <vector>

#include "ops/sampler_step_math.h"

struct CUstream_st;

namespace mdm::ops {

// All levels by one launch; at most kMostSamplerLevels. All pointers are device memory, the work is queued on `stream`.
// Error when the launch fails.
constexpr size_t kMostSamplerLevels = 6;
void sampler_step_cuda(const std::vector<SamplerArguments>& levels, const SamplerPlan& plan, CUstream_st* stream);

}  // namespace mdm::ops
