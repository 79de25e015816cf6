#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "ops/group_norm_math.h"

namespace mdm::ops {
namespace norm_kernel {

void fold_parameters(const GroupNormArguments& a, int64_t b, const double* statistics, const Affine& affine) {
  const int64_t width = a.channels / a.groups;
  for (int64_t c = 0; c < a.channels; ++c) {
    const double mean = statistics[2 * (c / width)];
    const auto center = static_cast<float>(mean);
    double factor = statistics[2 * (c / width) + 1] * a.weight[c];
    double offset = a.bias[c] - (mean - center) * factor;
    if (a.scale != nullptr) {
      const double scale = 1.0 + a.scale[b * a.channels + c];
      factor *= scale;
      offset = offset * scale + a.shift[b * a.channels + c];
    }
    affine.center[c] = center;
    affine.factor[c] = static_cast<float>(factor);
    affine.offset[c] = static_cast<float>(offset);
  }
}

}  // namespace norm_kernel

namespace {

using norm_kernel::Affine;
using norm_kernel::Chunks;
using norm_kernel::kBlock;
using vector::exponential;
using vector::load;
using vector::store;

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

// A picture's mean and 1 / deviation per group, from its channel sums. `pivot`: (C).
template <typename T>
void fold_sums(const GroupNormArguments& a, const T* pivot, const double* sums, double* statistics) {
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
    statistics[2 * g] = mean;
    statistics[2 * g + 1] = 1.0 / std::sqrt(variance + a.epsilon);
  }
}

template <typename T, typename Sums, typename Normalise>
void run(const GroupNormArguments& a, const T* x, T* y, double* statistics, Sums sums_of, Normalise normalise_to) {
  const Chunks chunks(a);
  const int64_t stride = 2 * a.channels, image_size = a.positions * a.channels;
  std::vector<double> partial(static_cast<size_t>(a.batch * chunks.count * stride), 0.0);
  at::parallel_for(0, a.batch * chunks.count, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> block(static_cast<size_t>(stride));
    for (int64_t i = begin; i < end; ++i) {
      sums_of(x + chunks.image(i) * image_size, a.channels, chunks.first(i), chunks.last(i), block.data(),
              partial.data() + i * stride);
    }
  });
  std::vector<float> parameters(static_cast<size_t>(3 * a.batch * a.channels));
  const auto affine_of = [&](int64_t b) {
    float* at = parameters.data() + 3 * b * a.channels;
    return Affine{at, at + a.channels, at + 2 * a.channels};
  };
  for (int64_t b = 0; b < a.batch; ++b) {
    double* sums = partial.data() + b * chunks.count * stride;
    for (int64_t k = 1; k < chunks.count; ++k) {
      for (int64_t c = 0; c < stride; ++c) sums[c] += sums[k * stride + c];
    }
    fold_sums(a, x + b * image_size, sums, statistics + 2 * b * a.groups);
    norm_kernel::fold_parameters(a, b, statistics + 2 * b * a.groups, affine_of(b));
  }
  at::parallel_for(0, a.batch * chunks.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = chunks.image(i) * image_size;
      normalise_to(x + image, y + image, a.channels, chunks.first(i), chunks.last(i), affine_of(chunks.image(i)),
                   a.silu);
    }
  });
}

}  // namespace

void group_norm_channels_last(const GroupNormArguments& arguments, const float* x, float* y, double* statistics) {
  run(arguments, x, y, statistics, sums_f32, normalise_f32);
}

void group_norm_channels_last_bf16(const GroupNormArguments& arguments, const uint16_t* x, uint16_t* y,
                                   double* statistics) {
  run(arguments, x, y, statistics, sums_bf16, normalise_bf16);
}

}  // namespace mdm::ops
