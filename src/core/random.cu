// Random numbers on a CUDA device: the scalar definition of philox_math.h, one thread for four numbers.
// Must be compiled with --fmad=false -prec-sqrt=true, or the bits differ from the CPU's.
#include "core/random_cuda.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "core/philox_math.h"
#include "core/random_paths.h"
#include "mdm/core/error.h"

namespace mdm::detail {
namespace {

constexpr unsigned kThreads = 256;
constexpr size_t kMostBlocks = size_t{1} << 20;  // a thread takes several groups of four when there are more

struct BitsOf {
  using Number = uint32_t;
  static __device__ void put(const philox::Words& words, Number (&four)[4]) {
    four[0] = words.a;
    four[1] = words.b;
    four[2] = words.c;
    four[3] = words.d;
  }
};

template <philox::Floats (*transform)(const philox::Words&)>
struct FloatsOf {
  using Number = float;
  static __device__ void put(const philox::Words& words, Number (&four)[4]) {
    const philox::Floats values = transform(words);
    four[0] = values.a;
    four[1] = values.b;
    four[2] = values.c;
    four[3] = values.d;
  }
};

template <typename Kind>
__global__ void fill(philox::Sequence sequence, uint64_t first, typename Kind::Number* out, uint64_t count) {
  const uint64_t groups = (first % 4 + count + 3) / 4;
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t group = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; group < groups; group += stride) {
    const uint64_t block = first / 4 + group;
    typename Kind::Number four[4];
    Kind::put(philox::block_words(sequence, static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32)), four);
    for (unsigned word = 0; word < 4; ++word) {
      const uint64_t index = 4 * group + word - first % 4;  // wraps to a huge number before the first
      if (index < count) out[index] = four[word];
    }
  }
}

template <typename Kind>
void launch(const RandomAddress& address, uint64_t first, typename Kind::Number* out, size_t count,
            CUstream_st* stream) {
  if (count == 0) return;
  const size_t groups = (first % 4 + count + 3) / 4;
  const auto blocks = static_cast<unsigned>(std::min((groups + kThreads - 1) / kThreads, kMostBlocks));
  fill<Kind><<<blocks, kThreads, 0, stream>>>(random_sequence(address), first, out, count);
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) fail<Error>("random numbers on the CUDA device: ", cudaGetErrorString(code));
}

}  // namespace

void random_bits_cuda(const RandomAddress& address, uint64_t first, uint32_t* out, size_t count, CUstream_st* stream) {
  launch<BitsOf>(address, first, out, count, stream);
}

void random_uniform_cuda(const RandomAddress& address, uint64_t first, float* out, size_t count, CUstream_st* stream) {
  launch<FloatsOf<philox::uniforms>>(address, first, out, count, stream);
}

void random_normal_cuda(const RandomAddress& address, uint64_t first, float* out, size_t count, CUstream_st* stream) {
  launch<FloatsOf<philox::normals>>(address, first, out, count, stream);
}

}  // namespace mdm::detail
