// Sums over the threads of a block, in an order that never changes.
#pragma once

#include "ops/cuda_language.h"

namespace mdm::ops {

// The sum over the block's kThreads threads (a power of two), for all of them. `shared`: kThreads numbers.
template <unsigned kThreads>
__device__ inline double block_sum(double value, double* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  const double sum = shared[0];
  __syncthreads();
  return sum;
}

}  // namespace mdm::ops
