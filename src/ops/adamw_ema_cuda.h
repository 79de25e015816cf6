// The optimizer step and the sum of squares on a CUDA device: the arithmetic of adamw_ema_cpu.h, to the bit for the
// step. Plain types only. Nothing here waits for the device.
#pragma once

#include <cstdint>

#include "ops/adamw_ema_cpu.h"

struct CUstream_st;

namespace mdm::ops {

// Of DeviceClip, in device memory. `squares` null: AdamNumbers::gradient_factor counts.
struct ClipPointers {
  const double* squares = nullptr;
  const double* loss = nullptr;
  const double* weight = nullptr;
  double norm = 0;
};

// All pointers are device memory; the work is queued on `stream`. Error when a launch fails.
void adamw_ema_cuda(const AdamPointers& pointers, const AdamNumbers& numbers, const ClipPointers& clip, int64_t count,
                    CUstream_st* stream);

// Doubles of device memory that a sum needs to work in.
int64_t sum_of_squares_cuda_workspace(int64_t count);
void sum_of_squares_cuda(const float* values, int64_t count, double* sum, double* workspace, CUstream_st* stream);

}  // namespace mdm::ops
