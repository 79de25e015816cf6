// Quantiles of magnitudes on a CUDA device. Plain types only. Nothing here waits for the device.
#pragma once

#include <cstdint>

#include "ops/quantile_rank.h"

struct CUstream_st;

namespace mdm::ops {

// 32-bit words of device memory that a call needs to work in.
int64_t abs_quantile_cuda_workspace(int64_t batch);

// x (batch, count), out (batch), in device memory; batch and count at least 1, count below 2^32. The work is queued on
// `stream`. Error when a launch fails.
void abs_quantile_cuda(const float* x, int64_t batch, int64_t count, const QuantileRank& rank, float* out,
                       uint32_t* workspace, CUstream_st* stream);

}  // namespace mdm::ops
