// What the CPU kernels share: vectors, element types, e^x. All is inlined, so that it is compiled for the kernel's
// instruction set (ops/instructions.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "ops/instructions.h"

namespace mdm::ops::vector {

// 16 numbers that are worked on at once; they need not be aligned in memory.
constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

inline MDM_INLINED float load(float value) { return value; }
inline MDM_INLINED float load(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
inline MDM_INLINED void store(float value, float& target) { target = value; }
inline MDM_INLINED void store(float value, uint16_t& target) {  // round to nearest even; a NaN stays one
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  target = static_cast<uint16_t>(value != value ? 0x7FC0U : rounded);
}

// e^v for v in [-87, 88], relative error below 2e-7: e^v = 2^n e^r with r in [-ln2/2, ln2/2].
inline MDM_INLINED float exponential(float v) {
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

// The same for sixteen numbers at once. Vectors go in and out of functions that are always inlined, so that no
// calling convention is involved.
#pragma GCC diagnostic ignored "-Wpsabi"
typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t)), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(kLanes * sizeof(uint32_t)), aligned(4), may_alias));

inline MDM_INLINED Lanes load_lanes(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
inline MDM_INLINED Lanes load_lanes(const uint16_t* p) {
  const Words wide = __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16;
  return reinterpret_cast<const Lanes&>(wide);
}
inline MDM_INLINED void store_lanes(const Lanes& v, float* p) { *reinterpret_cast<Lanes*>(p) = v; }
inline MDM_INLINED void store_lanes(const Lanes& v, uint16_t* p) {
  const Words bits = reinterpret_cast<const Words&>(v);
  const Words rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const Words nan = Words{} + 0x7FC0U;
  *reinterpret_cast<Halves*>(p) = __builtin_convertvector(v != v ? nan : rounded, Halves);
}

inline MDM_INLINED Lanes exponential(Lanes v) {
  v = v < -87.0F ? Lanes{} - 87.0F : v;
  v = v > 88.0F ? Lanes{} + 88.0F : v;
  const Lanes shifted = v * 1.44269504F + 12582912.0F;
  const Lanes n = shifted - 12582912.0F;
  const Lanes r = (v - n * 0.693359375F) - n * -2.12194440e-4F;
  Lanes p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const Words power = (reinterpret_cast<const Words&>(shifted) + 127U) << 23;
  return p * reinterpret_cast<const Lanes&>(power);
}

}  // namespace mdm::ops::vector
