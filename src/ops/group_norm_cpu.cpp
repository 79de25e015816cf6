#include "ops/group_norm_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

// One source, compiled for three instruction sets; the right one is chosen when the program starts.
#define MDM_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace mdm::ops {
namespace {

// Positions whose sums are kept in float32 before they go to float64.
constexpr int64_t kBlock = 256;

// y = (x - center) * factor + offset per channel. With the mean taken off first, a mean that is large
// against the deviation does not cost the result its digits.
struct Affine {
  float* center;
  float* factor;
  float* offset;
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

// Adds, over the positions [first, last), each channel's sum and sum of squares of x minus the channel's
// value at position 0 to sums[0..C) and sums[C..2C). Without that pivot a mean that is large against the
// deviation would cost the variance its digits.
template <typename T>
inline void channel_sums(const T* x, int64_t channels, int64_t first, int64_t last, float* block, double* sums) {
  for (int64_t start = first; start < last; start += kBlock) {
    const int64_t end = std::min(last, start + kBlock);
    std::fill(block, block + 2 * channels, 0.0F);
    for (int64_t p = start; p < end; ++p) {
      const T* row = x + p * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const float v = load(row[c]) - load(x[c]);
        block[c] += v;
        block[channels + c] += v * v;
      }
    }
    for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += block[c];
  }
}

template <typename T>
inline void normalise(const T* x, T* y, int64_t channels, int64_t first, int64_t last, const Affine& affine,
                      bool silu) {
  const float* center = affine.center;
  const float* factor = affine.factor;
  const float* offset = affine.offset;
  for (int64_t p = first; p < last; ++p) {
    const T* source = x + p * channels;
    T* target = y + p * channels;
    if (silu) {
      for (int64_t c = 0; c < channels; ++c) {
        const float v = (load(source[c]) - center[c]) * factor[c] + offset[c];
        store(v / (1.0F + exponential(-v)), target[c]);
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) store((load(source[c]) - center[c]) * factor[c] + offset[c], target[c]);
    }
  }
}

MDM_VECTOR_CLONES void sums_f32(const float* x, int64_t channels, int64_t first, int64_t last, float* block,
                                double* sums) {
  channel_sums(x, channels, first, last, block, sums);
}
MDM_VECTOR_CLONES void sums_bf16(const uint16_t* x, int64_t channels, int64_t first, int64_t last, float* block,
                                 double* sums) {
  channel_sums(x, channels, first, last, block, sums);
}
MDM_VECTOR_CLONES void normalise_f32(const float* x, float* y, int64_t channels, int64_t first, int64_t last,
                                     const Affine& affine, bool silu) {
  normalise(x, y, channels, first, last, affine, silu);
}
MDM_VECTOR_CLONES void normalise_bf16(const uint16_t* x, uint16_t* y, int64_t channels, int64_t first, int64_t last,
                                      const Affine& affine, bool silu) {
  normalise(x, y, channels, first, last, affine, silu);
}

// From a picture's channel sums to what is done to each of its values. `pivot`: (C).
template <typename T>
void fold_parameters(const GroupNormArguments& a, int64_t b, const T* pivot, const double* sums, const Affine& affine) {
  const int64_t width = a.channels / a.groups;
  const auto count = static_cast<double>(a.positions);
  for (int64_t g = 0; g < a.groups; ++g) {
    const int64_t first = g * width, last = first + width;
    double mean = 0;
    for (int64_t c = first; c < last; ++c) mean += load(pivot[c]) + sums[c] / count;
    mean /= static_cast<double>(width);
    double squares = 0;  // sum of (x - mean)^2: within each channel, and of the channel's mean
    for (int64_t c = first; c < last; ++c) {
      const double channel_mean = load(pivot[c]) + sums[c] / count;
      squares +=
          sums[a.channels + c] - sums[c] * sums[c] / count + count * (channel_mean - mean) * (channel_mean - mean);
    }
    const double variance = std::max(squares / (count * static_cast<double>(width)), 0.0);
    const double inverse = 1.0 / std::sqrt(variance + a.epsilon);
    for (int64_t c = first; c < last; ++c) {
      double f = inverse * a.weight[c];
      const auto center = static_cast<float>(mean);
      double o = a.bias[c] - (mean - center) * f;
      if (a.scale != nullptr) {
        const double scale = 1.0 + a.scale[b * a.channels + c];
        f *= scale;
        o = o * scale + a.shift[b * a.channels + c];
      }
      affine.center[c] = center;
      affine.factor[c] = static_cast<float>(f);
      affine.offset[c] = static_cast<float>(o);
    }
  }
}

// The positions are cut into chunks that threads work on; the number of chunks depends on the shape
// alone, so that the sums, and with them the pictures, do not depend on the number of threads.
template <typename T, typename Sums, typename Normalise>
void run(const GroupNormArguments& a, const T* x, T* y, Sums sums_of, Normalise normalise_to) {
  const int64_t chunk = std::max<int64_t>(kBlock, 65536 / std::max<int64_t>(a.channels, 1));
  const int64_t chunks = (a.positions + chunk - 1) / chunk;
  const int64_t stride = 2 * a.channels;
  std::vector<double> partial(static_cast<size_t>(a.batch * chunks * stride), 0.0);
  at::parallel_for(0, a.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> block(static_cast<size_t>(stride));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / chunks, first = (i % chunks) * chunk;
      sums_of(x + b * a.positions * a.channels, a.channels, first, std::min(a.positions, first + chunk), block.data(),
              partial.data() + i * stride);
    }
  });
  std::vector<float> parameters(static_cast<size_t>(3 * a.batch * a.channels));
  const auto affine_of = [&](int64_t b) {
    float* at = parameters.data() + 3 * b * a.channels;
    return Affine{at, at + a.channels, at + 2 * a.channels};
  };
  for (int64_t b = 0; b < a.batch; ++b) {
    double* sums = partial.data() + b * chunks * stride;
    for (int64_t k = 1; k < chunks; ++k) {
      for (int64_t c = 0; c < stride; ++c) sums[c] += sums[k * stride + c];
    }
    fold_parameters(a, b, x + b * a.positions * a.channels, sums, affine_of(b));
  }
  at::parallel_for(0, a.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / chunks, first = (i % chunks) * chunk, image = b * a.positions * a.channels;
      normalise_to(x + image, y + image, a.channels, first, std::min(a.positions, first + chunk), affine_of(b), a.silu);
    }
  });
}

}  // namespace

void group_norm_channels_last(const GroupNormArguments& arguments, const float* x, float* y) {
  run(arguments, x, y, sums_f32, normalise_f32);
}

void group_norm_channels_last_bf16(const GroupNormArguments& arguments, const uint16_t* x, uint16_t* y) {
  run(arguments, x, y, sums_bf16, normalise_bf16);
}

}  // namespace mdm::ops
