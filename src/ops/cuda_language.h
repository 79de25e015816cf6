// CUDA for the kernels of this room. Tests run the same sources on a CPU, with tests/support/cuda_emulation.h in the
// place of nvcc: so launches and shared memory are written with these macros.
#pragma once

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_runtime.h>

// MDM_LAUNCH((kernel<T>), grid, threads, bytes of shared memory, stream, arguments...);
#define MDM_LAUNCH(kernel, grid, threads, shared, stream, ...) \
  (kernel)<<<(grid), (threads), (shared), (stream)>>>(__VA_ARGS__)
#define MDM_DYNAMIC_SHARED(type, name) extern __shared__ type name[]

#elif !defined(MDM_CUDA_EMULATION)
#error "include support/cuda_emulation.h first, or compile with nvcc"
#endif
