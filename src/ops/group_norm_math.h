// What the forward and the backward kernel of GroupNorm share: element types, e^x, and how work is cut.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "ops/group_norm_cpu.h"

// One source, compiled for three instruction sets; the right one is chosen when the program starts.
#define MDM_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace mdm::ops::norm_kernel {

// Positions whose sums are kept in float32 before they go to float64.
constexpr int64_t kBlock = 256;

// y = (x - center) * factor + offset per channel. With the mean taken off first, a mean that is large
// against the deviation does not cost the result its digits.
struct Affine {
  float* center;
  float* factor;
  float* offset;
};

// What is done to the values of picture `b`, whose groups have statistics (mean, 1 / deviation) each.
void fold_parameters(const GroupNormArguments& a, int64_t b, const double* statistics, const Affine& affine);

// The positions are cut into chunks that threads work on; the number of chunks depends on the shape
// alone, so that the sums, and with them the pictures, do not depend on the number of threads.
struct Chunks {
  int64_t positions, size, count;

  explicit Chunks(const GroupNormArguments& a)
      : positions(a.positions),
        size(std::max<int64_t>(kBlock, 65536 / std::max<int64_t>(a.channels, 1))),
        count((a.positions + size - 1) / size) {}
  int64_t first(int64_t chunk) const { return chunk % count * size; }
  int64_t last(int64_t chunk) const { return std::min(positions, first(chunk) + size); }
  int64_t image(int64_t chunk) const { return chunk / count; }
};

inline float load(float value) { return value; }
inline float load(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
inline void store(float value, float& target) { target = value; }
inline void store(float value, uint16_t& target) {  // round to nearest even; a NaN stays one
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  target = static_cast<uint16_t>(value != value ? 0x7FC0U : rounded);
}

// e^v for v in [-87, 88], relative error below 2e-7: e^v = 2^n e^r with r in [-ln2/2, ln2/2].
inline float exponential(float v) {
  v = std::min(std::max(v, -87.0F), 88.0F);
  const float shifted = v * 1.44269504F + 12582912.0F;  // adding 1.5 * 2^23 rounds to an integer
  const float n = shifted - 12582912.0F;
  const float r = (v - n * 0.693359375F) - n * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const uint32_t power = (bits + 127U) << 23;  // the low bits of `shifted` hold n
  float scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

}  // namespace mdm::ops::norm_kernel
