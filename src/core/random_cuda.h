// Random numbers made on a CUDA device, equal to the bit to those of mdm/core/random.h. Plain types only,
// so that any room can call it without CUDA's headers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mdm/core/random.h"

struct CUstream_st;

namespace mdm::detail {

/// As random_bits, random_uniform and random_normal; `out` is memory of the current device, and the work
/// is queued on `stream` (null = the default stream). Error when the launch fails.
void random_bits_cuda(const RandomAddress& address, uint64_t first, uint32_t* out, size_t count, CUstream_st* stream);
void random_uniform_cuda(const RandomAddress& address, uint64_t first, float* out, size_t count, CUstream_st* stream);
void random_normal_cuda(const RandomAddress& address, uint64_t first, float* out, size_t count, CUstream_st* stream);

}  // namespace mdm::detail
