// Radix selection: the bits of |x| are in the order of their values. Three passes count how many numbers have which
// digit (11, 10 and 10 bits) behind the digits found so far; a fourth finds the next larger number. Counts are
// integers, so their order does not matter.
#include "ops/quantile_cuda.h"

#include <cstring>

#include "mdm/core/error.h"
#include "ops/cuda_language.h"

namespace mdm::ops {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kBins = 2048;
constexpr int64_t kChunk = 1 << 14;  // numbers of a block
constexpr uint32_t kInfinity = 0x7f800000U;
constexpr uint32_t kNone = 0xffffffffU;
constexpr int kPasses = 3;

// What is known of a row's number at the wanted rank.
struct Selection {
  uint32_t bits;     // the digits found so far, the others 0
  uint32_t largest;  // bits of the largest number of the row
  uint32_t next;     // ... of the smallest one above it
  uint32_t rank;     // among the numbers that begin with these digits, counted from 0
  uint32_t equal;    // how many they are
};

struct Work {
  Selection* selections;  // (batch)
  uint32_t* counts;       // (batch, kBins)
};

__device__ inline int shift_of(int pass) { return pass == 0 ? 20 : pass == 1 ? 10 : 0; }

__device__ inline uint32_t magnitude(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits & 0x7fffffffU;
}

__global__ void begin(Work work, QuantileRank rank) {
  uint32_t* counts = work.counts + static_cast<int64_t>(blockIdx.x) * kBins;
  for (unsigned i = threadIdx.x; i < kBins; i += kThreads) counts[i] = 0;
  if (threadIdx.x == 0) work.selections[blockIdx.x] = {0, 0, kNone, static_cast<uint32_t>(rank.below), 0};
}

// Blocks (chunk, row).
__global__ void count_digits(const float* x, int64_t count, Work work, int pass) {
  __shared__ uint32_t bins[kBins];
  __shared__ uint32_t largest;
  for (unsigned i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  const float* row = x + static_cast<int64_t>(blockIdx.y) * count;
  Selection& selection = work.selections[blockIdx.y];
  const uint32_t found = selection.bits;
  const int shift = shift_of(pass), known = pass == 0 ? 31 : shift_of(pass - 1);
  const uint32_t mask = pass == 0 ? kBins - 1 : 1023U;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kChunk, last = min(first + kChunk, count);
  uint32_t most = 0;
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) {
    const uint32_t bits = magnitude(row[i]);
    most = max(most, bits);
    if (bits >> known == found >> known) atomicAdd(&bins[bits >> shift & mask], 1U);
  }
  if (pass == 0) atomicMax(&largest, most);
  __syncthreads();
  uint32_t* counts = work.counts + static_cast<int64_t>(blockIdx.y) * kBins;
  for (unsigned i = threadIdx.x; i < kBins; i += kThreads) {
    if (bins[i] != 0) atomicAdd(&counts[i], bins[i]);
  }
  if (pass == 0 && threadIdx.x == 0) atomicMax(&selection.largest, largest);
}

// A block for each row: the digit with which the wanted rank is reached. Leaves the counts at 0 for the next pass.
__global__ void pick_digit(Work work, int pass) {
  constexpr unsigned kEach = kBins / kThreads;
  __shared__ uint32_t sums[kThreads];
  uint32_t* counts = work.counts + static_cast<int64_t>(blockIdx.x) * kBins;
  uint32_t sum = 0;
  for (unsigned i = 0; i < kEach; ++i) sum += counts[threadIdx.x * kEach + i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    Selection& selection = work.selections[blockIdx.x];
    uint32_t rank = selection.rank;
    unsigned digit = 0;
    for (unsigned t = 0; t + 1 < kThreads && rank >= sums[t]; ++t) {
      rank -= sums[t];
      digit += kEach;
    }
    while (digit + 1 < kBins && rank >= counts[digit]) rank -= counts[digit++];
    selection.bits |= digit << shift_of(pass);
    selection.rank = rank;
    selection.equal = counts[digit];
  }
  __syncthreads();
  for (unsigned i = 0; i < kEach; ++i) counts[threadIdx.x * kEach + i] = 0;
}

// Blocks (chunk, row): the smallest number above the one that was found.
__global__ void find_next(const float* x, int64_t count, Work work) {
  __shared__ uint32_t smallest;
  if (threadIdx.x == 0) smallest = kNone;
  __syncthreads();
  Selection& selection = work.selections[blockIdx.y];
  const uint32_t found = selection.bits;
  const float* row = x + static_cast<int64_t>(blockIdx.y) * count;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kChunk, last = min(first + kChunk, count);
  uint32_t least = kNone;
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) {
    const uint32_t bits = magnitude(row[i]);
    if (bits > found) least = min(least, bits);
  }
  atomicMin(&smallest, least);
  __syncthreads();
  if (threadIdx.x == 0) atomicMin(&selection.next, smallest);
}

__device__ inline float value_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

__global__ void finish(Work work, int64_t batch, float weight, float* out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= batch) return;
  const Selection& s = work.selections[row];
  const float low = value_of(s.bits);
  const bool repeats = s.rank + 1 < s.equal;
  const float high = repeats || s.next == kNone ? low : value_of(s.next);
  out[row] = s.largest > kInfinity ? value_of(0x7fc00000U) : low + weight * (high - low);
}

}  // namespace

int64_t abs_quantile_cuda_workspace(int64_t batch) {
  return batch * (static_cast<int64_t>(sizeof(Selection) / sizeof(uint32_t)) + kBins);
}

void abs_quantile_cuda(const float* x, int64_t batch, int64_t count, const QuantileRank& rank, float* out,
                       uint32_t* workspace, CUstream_st* stream) {
  const Work work = {reinterpret_cast<Selection*>(workspace + batch * kBins), workspace};
  const auto rows = static_cast<unsigned>(batch);
  const dim3 chunks = {static_cast<unsigned>((count + kChunk - 1) / kChunk), rows, 1};
  MDM_LAUNCH((begin), rows, kThreads, 0, stream, work, rank);
  for (int pass = 0; pass < kPasses; ++pass) {
    MDM_LAUNCH((count_digits), chunks, kThreads, 0, stream, x, count, work, pass);
    MDM_LAUNCH((pick_digit), rows, kThreads, 0, stream, work, pass);
  }
  MDM_LAUNCH((find_next), chunks, kThreads, 0, stream, x, count, work);
  MDM_LAUNCH((finish), (rows + kThreads - 1) / kThreads, kThreads, 0, stream, work, batch, rank.weight, out);
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) fail<Error>("a quantile on the CUDA device: ", cudaGetErrorString(code));
}

}  // namespace mdm::ops
