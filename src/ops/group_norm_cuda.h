// GroupNorm with modulation and SiLU over channels_last data on a CUDA device: the arithmetic of group_norm_cpu.h.
// Plain types only, so that any room can call it without CUDA's headers.
#pragma once

#include <cstdint>

#include "ops/group_norm_cpu.h"

struct CUstream_st;

namespace mdm::ops {

enum class GroupNormType { kFloat, kBFloat16 };

// Floats of device memory that a call needs to work in.
int64_t group_norm_cuda_workspace(const GroupNormArguments& arguments, GroupNormType type);

// All pointers are device memory; x, y (B, positions, C), contiguous, of `type`, aligned to 16 bytes. `statistics`
// (B, groups, 2) receives mean and 1 / deviation. The work is queued on `stream`. Error when a launch fails.
void group_norm_cuda(const GroupNormArguments& arguments, GroupNormType type, const void* x, void* y,
                     double* statistics, float* workspace, CUstream_st* stream);

// From the gradient dy of y to dx and those of the parameters (float32, device memory too).
void group_norm_backward_cuda(const GroupNormArguments& arguments, GroupNormType type, const double* statistics,
                              const void* x, const void* dy, void* dx, const GroupNormGradients& gradients,
                              float* workspace, CUstream_st* stream);

}  // namespace mdm::ops
