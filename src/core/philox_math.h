// The scalar definition of our random numbers, shared by C++ and CUDA: integers, and IEEE float
// additions, multiplications and square roots in a fixed order, nothing else. Compilers may put many of
// these side by side in vector registers, but must not fuse (-ffp-contract=off, --fmad=false).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define MDM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MDM_HOST_DEVICE [[gnu::always_inline]] inline
#endif

namespace mdm::philox {

struct Words {
  uint32_t a, b, c, d;
};

struct Floats {
  float a, b, c, d;
};

/// Everything of a RandomAddress but the number's index: the key, and the upper half of the counter.
struct Sequence {
  uint32_t key0, key1, sample_low, sample_high;
};

MDM_HOST_DEVICE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

MDM_HOST_DEVICE float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; 2011).
MDM_HOST_DEVICE Words philox(Words counter, uint32_t key0, uint32_t key1) {
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t product_a = static_cast<uint64_t>(counter.a) * 0xD2511F53u;
    const uint64_t product_c = static_cast<uint64_t>(counter.c) * 0xCD9E8D57u;
    const uint32_t high_a = static_cast<uint32_t>(product_a >> 32);
    const uint32_t high_c = static_cast<uint32_t>(product_c >> 32);
    const Words next = {high_c ^ counter.b ^ key0, static_cast<uint32_t>(product_c), high_a ^ counter.d ^ key1,
                        static_cast<uint32_t>(product_a)};
    counter = next;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// The sequence at an address (see random_bits in mdm/core/random.h).
MDM_HOST_DEVICE Sequence sequence_at(uint64_t seed, uint64_t step, uint32_t attempt, uint32_t layer, uint32_t stream,
                                     uint64_t sample) {
  const Words key = philox({static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32), attempt, layer},
                           static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return {key.a ^ stream, key.b, static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32)};
}

/// Words 4 * block ... 4 * block + 3 of the sequence.
MDM_HOST_DEVICE Words block_words(const Sequence& sequence, uint32_t block_low, uint32_t block_high) {
  return philox({block_low, block_high, sequence.sample_low, sequence.sample_high}, sequence.key0, sequence.key1);
}

/// In [2^-24, 1 - 2^-24]: the middles of 2^23 equal cells; exact, since 2 * cell + 1 has 24 bits.
MDM_HOST_DEVICE float uniform(uint32_t word) {
  return (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
}

/// Natural logarithm of a normal positive float. u = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), and
/// ln(1 + f) = f - f^2/2 + f^3 P(f); P is a minimax polynomial (relative error 6e-9 before rounding).
MDM_HOST_DEVICE float log_normal_range(float u) {
  const int32_t bits = static_cast<int32_t>(bits_of(u));
  const int32_t exponent = (bits - 0x3F3504F3) >> 23;  // 0x3F3504F3 is sqrt(1/2)
  const float f = float_of(static_cast<uint32_t>(bits - exponent * (1 << 23))) - 1.0f;
  const float e = static_cast<float>(exponent);
  const float square = f * f;
  float p = -0x1.38b58ap-4f;
  p = p * f + 0x1.055b6cp-3f;
  p = p * f + -0x1.0d8540p-3f;
  p = p * f + 0x1.22da1cp-3f;
  p = p * f + -0x1.547244p-3f;
  p = p * f + 0x1.99a008p-3f;
  p = p * f + -0x1.000226p-2f;
  p = p * f + 0x1.555554p-2f;
  float y = f * square;
  y = y * p;
  y = y + e * -0x1.bd0106p-13f;  // ln 2 = 0.693359375 (e times it is exact) - 0.000212194440
  y = y - 0.5f * square;
  y = y + f;
  return y + e * 0x1.63p-1f;
}

/// Radius of the Box-Muller transform, sqrt(-2 ln u) with u in [2^-32, 1] from the upper 31 bits.
MDM_HOST_DEVICE float radius(uint32_t word) {
  const float u = (static_cast<float>(static_cast<int32_t>(word >> 1)) + 0.5f) * 0x1p-31f;
  const float square = -2.0f * log_normal_range(u);
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(square);
#else
  return std::sqrt(square);
#endif
}

/// cos and sin of 2 pi word / 2^32. The upper bits name the nearest quarter turn; the rest, x in [-1, 1],
/// is an angle of x pi/4, for which sine and cosine have minimax polynomials in x^2.
MDM_HOST_DEVICE void turn(uint32_t word, float& cosine, float& sine) {
  const uint32_t shifted = word + 0x20000000u;
  const uint32_t quarter = shifted >> 30;
  const int32_t rest = static_cast<int32_t>(shifted & 0x3FFFFFFFu) - 0x20000000;
  const float x = static_cast<float>(rest) * 0x1p-29f;
  const float square = x * x;
  float s = -0x1.2d9302p-15f;
  s = s * square + 0x1.465e92p-9f;
  s = s * square + -0x1.4abbbap-4f;
  s = s * square + 0x1.921fb6p-1f;
  s = s * x;
  float c = 0x1.d9f7bcp-19f;
  c = c * square + -0x1.55c664p-12f;
  c = c * square + 0x1.03c1dep-6f;
  c = c * square + -0x1.3bd3ccp-2f;
  c = c * square + 1.0f;
  const uint32_t swap = 0u - (quarter & 1u);  // all ones in the odd quarters, where sine and cosine change places
  const uint32_t s_bits = bits_of(s);
  const uint32_t c_bits = bits_of(c);
  const uint32_t difference = (s_bits ^ c_bits) & swap;
  cosine = float_of((c_bits ^ difference) ^ (((quarter + 1u) & 2u) << 30));
  sine = float_of((s_bits ^ difference) ^ ((quarter & 2u) << 30));
}

MDM_HOST_DEVICE Floats uniforms(const Words& words) {
  return {uniform(words.a), uniform(words.b), uniform(words.c), uniform(words.d)};
}

/// Two pairs of standard normals: (a, b) from words (a, b), (c, d) from words (c, d).
MDM_HOST_DEVICE Floats normals(const Words& words) {
  float cos_ab, sin_ab, cos_cd, sin_cd;
  turn(words.b, cos_ab, sin_ab);
  turn(words.d, cos_cd, sin_cd);
  const float radius_ab = radius(words.a);
  const float radius_cd = radius(words.c);
  return {radius_ab * cos_ab, radius_ab * sin_ab, radius_cd * cos_cd, radius_cd * sin_cd};
}

}  // namespace mdm::philox
