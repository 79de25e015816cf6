// One pass over memory for gradient scale, clipping, AdamW, average and bfloat16 copy. Compiled with --fmad=false, so
// that the bits are the CPU's.
#include "ops/adamw_ema_cuda.h"

#include <cmath>
#include <cstring>

#include "mdm/core/error.h"
#include "ops/clip_factor.h"
#include "ops/cuda_language.h"
#include "ops/cuda_sums.h"
#include "ops/flat_launch.h"

namespace mdm::ops {
namespace {

constexpr int kPack = 4;  // elements that a thread takes at once

template <typename T, int kVector>
struct alignas(kVector * sizeof(T)) Pack {
  T values[kVector];
};

template <int kVector, typename T>
__device__ inline Pack<T, kVector> read(const T* x) {
  return *reinterpret_cast<const Pack<T, kVector>*>(x);
}

template <int kVector, typename T>
__device__ inline void write(T* x, const Pack<T, kVector>& pack) {
  *reinterpret_cast<Pack<T, kVector>*>(x) = pack;
}

__device__ inline uint16_t to_bfloat16(float value) {  // as in adamw_ema_cpu.cpp
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<uint16_t>(value != value ? 0x7FC0U : rounded);
}

__device__ inline float root(float value) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(value);
#else
  return std::sqrt(value);
#endif
}

template <bool kEma, bool kCompute, int kVector>
__device__ inline void step_elements(const AdamPointers& p, const AdamNumbers& n, int64_t at) {
  const auto gradients = read<kVector>(p.gradients + at);
  auto weights = read<kVector>(p.weights + at), first = read<kVector>(p.exp_avg + at),
       second = read<kVector>(p.exp_avg_sq + at);
  for (int i = 0; i < kVector; ++i) {
    const float g = gradients.values[i] * n.gradient_factor;
    const float m = first.values[i] + n.blend1 * (g - first.values[i]);
    const float v = n.beta2 * second.values[i] + n.blend2 * (g * g);
    first.values[i] = m;
    second.values[i] = v;
    weights.values[i] = weights.values[i] * n.shrink - n.step_size * (m / (root(v) * n.root_scale + n.eps));
  }
  write(p.exp_avg + at, first);
  write(p.exp_avg_sq + at, second);
  write(p.weights + at, weights);
  if (kEma) {
    auto ema = read<kVector>(p.ema + at);
    for (int i = 0; i < kVector; ++i) ema.values[i] += n.ema_blend * (weights.values[i] - ema.values[i]);
    write(p.ema + at, ema);
  }
  if (kCompute) {
    Pack<uint16_t, kVector> rounded;
    for (int i = 0; i < kVector; ++i) rounded.values[i] = to_bfloat16(weights.values[i]);
    write(p.compute + at, rounded);
  }
}

template <bool kEma, bool kCompute, int kVector>
__global__ void step(AdamPointers p, AdamNumbers n, ClipPointers clip, int64_t count) {
  if (clip.squares != nullptr) {
    double factor = 0;
    if (!clip_factor(*clip.squares, *clip.loss, *clip.weight, clip.norm, factor)) return;
    n.gradient_factor = static_cast<float>(factor);
  }
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x, packs = count / kVector;
  for (int64_t k = first; k < packs; k += stride) step_elements<kEma, kCompute, kVector>(p, n, k * kVector);
  for (int64_t i = packs * kVector + first; i < count; i += stride) step_elements<kEma, kCompute, 1>(p, n, i);
}

bool aligned(const void* pointer, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

bool aligned(const AdamPointers& p) {
  return aligned(p.weights, 16) && aligned(p.gradients, 16) && aligned(p.exp_avg, 16) && aligned(p.exp_avg_sq, 16) &&
         aligned(p.ema, 16) && aligned(p.compute, 8);
}

template <bool kEma, bool kCompute>
void launch_step(const AdamPointers& p, const AdamNumbers& n, const ClipPointers& clip, int64_t count,
                 CUstream_st* stream) {
  const bool packed = aligned(p);
  const auto blocks = static_cast<unsigned>(FlatLaunch::blocks(packed ? (count + kPack - 1) / kPack : count));
  constexpr auto kThreads = static_cast<unsigned>(FlatLaunch::kThreads);
  if (packed) {
    MDM_LAUNCH((step<kEma, kCompute, kPack>), blocks, kThreads, 0, stream, p, n, clip, count);
  } else {
    MDM_LAUNCH((step<kEma, kCompute, 1>), blocks, kThreads, 0, stream, p, n, clip, count);
  }
}

constexpr auto kSumThreads = static_cast<unsigned>(SumLaunch::kThreads);

__global__ void chunk_squares(const float* values, int64_t count, double* sums) {
  __shared__ double shared[kSumThreads];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * SumLaunch::kChunk;
  const int64_t last = min(first + SumLaunch::kChunk, count);
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < last; i += kSumThreads) {
    const double v = values[i];
    sum += v * v;
  }
  sum = block_sum<kSumThreads>(sum, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void add_chunks(const double* sums, int64_t chunks, double* out) {
  __shared__ double shared[kSumThreads];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kSumThreads) sum += sums[i];
  sum = block_sum<kSumThreads>(sum, shared);
  if (threadIdx.x == 0) *out = sum;
}

void check_launch(const char* what) {
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) fail<Error>(what, " on the CUDA device: ", cudaGetErrorString(code));
}

}  // namespace

void adamw_ema_cuda(const AdamPointers& p, const AdamNumbers& n, const ClipPointers& clip, int64_t count,
                    CUstream_st* stream) {
  if (count == 0) return;
  if (p.ema != nullptr) {
    p.compute != nullptr ? launch_step<true, true>(p, n, clip, count, stream)
                         : launch_step<true, false>(p, n, clip, count, stream);
  } else {
    p.compute != nullptr ? launch_step<false, true>(p, n, clip, count, stream)
                         : launch_step<false, false>(p, n, clip, count, stream);
  }
  check_launch("the optimizer step");
}

int64_t sum_of_squares_cuda_workspace(int64_t count) { return SumLaunch::blocks(count); }

void sum_of_squares_cuda(const float* values, int64_t count, double* sum, double* workspace, CUstream_st* stream) {
  const int64_t chunks = SumLaunch::blocks(count);
  if (chunks > 0) {
    MDM_LAUNCH((chunk_squares), static_cast<unsigned>(chunks), kSumThreads, 0, stream, values, count, workspace);
  }
  MDM_LAUNCH((add_chunks), 1U, kSumThreads, 0, stream, workspace, chunks, sum);
  check_launch("a sum of squares");
}

}  // namespace mdm::ops
