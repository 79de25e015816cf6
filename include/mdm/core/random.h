// Random numbers specified to the bit: Philox 4x32-10 (Salmon et al. 2011), addressed by what they are
// for instead of drawn from a state. The same address gives the same bits on every machine, whatever
// the batch, the thread count, the instruction set or the device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace mdm {

/// What random numbers are used for; part of their address, so that uses never share numbers.
enum class RandomStream : uint32_t {
  kNoise = 1,  ///< x_T and the noise of training
  kStep = 2,   ///< noise that a sampler adds in a step
  kTime = 3,   ///< diffusion times of training
  kCaptionDropout = 4,
  kLayerDropout = 5,
  kCrop = 6,
  kShuffle = 7,
  kInit = 8,   ///< fresh weights
  kScene = 9,  ///< generated pictures (the demo data)
};

/// The address of a sequence of random numbers.
struct RandomAddress {
  uint64_t seed = 0;     ///< of the run; of the image (seed + i) when sampling
  uint32_t attempt = 0;  ///< raised by a rollback of training
  uint64_t step = 0;     ///< training step, or sampling step
  uint64_t sample = 0;   ///< global index of the sample; 0 where the seed is the image's own
  RandomStream stream = RandomStream::kNoise;
  uint32_t layer = 0;  ///< layer, or level of a nested model (0 = highest resolution)
};

/// Philox 4x32-10: ten rounds over the counter with the key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// The raw 32-bit numbers [first, first + count) of the sequence at `address`.
/// The key is the first half of philox(counter = {step low, step high, attempt, layer}, key = seed)
/// xor {stream, 0}; number n is word n % 4 of philox(counter = {n/4 low, n/4 high, sample low, sample
/// high}, that key).
void random_bits(const RandomAddress& address, uint64_t first, uint32_t* out, size_t count);

/// Uniform in (0, 1): (bits / 2^9 + 0.5) * 2^-23 with integer division, so 2^23 values from 2^-24 to
/// 1 - 2^-24, all exact in float (with one bit more the largest would round to 1).
void random_uniform(const RandomAddress& address, uint64_t first, float* out, size_t count);

/// Standard normal by the Box-Muller transform with polynomials of our own for logarithm, sine and
/// cosine: only IEEE additions, multiplications and square roots in a fixed order, so that vector units
/// and GPUs agree to the bit. Numbers 2k and 2k+1 are r cos(t) and r sin(t) with r = sqrt(-2 ln u),
/// u = (bits[2k] / 2 + 0.5) * 2^-31 rounded to float, t = 2 pi bits[2k+1] / 2^32; so |x| <= 6.66.
/// Largest errors against long double: ln 8.1e-8 relative (every float u), sine and cosine 1.1e-7
/// absolute and 1.8e-7 relative, numbers 7.0e-7 absolute. About 2 ns a number on one AVX-512 core.
void random_normal(const RandomAddress& address, uint64_t first, float* out, size_t count);

/// Uniform integer in [0, bound), bound >= 1, number `index` of the sequence (Lemire's multiplication
/// of 64 bits by the bound; bias below bound / 2^64).
uint64_t random_below(const RandomAddress& address, uint64_t index, uint64_t bound);

}  // namespace mdm
