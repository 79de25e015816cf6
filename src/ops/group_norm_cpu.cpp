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
using vector::kLanes;
using vector::Lanes;
using vector::load;
using vector::load_lanes;
using vector::store;
using vector::store_lanes;

// Positions that are worked on for some channels before the next channels: they stay in the first cache.
template <typename T>
inline MDM_INLINED int64_t rows_at_once(int64_t channels) {
  constexpr int64_t kBytes = 16384;
  return std::clamp<int64_t>(kBytes / (channels * static_cast<int64_t>(sizeof(T))), 4, 64);
}

// A tensor whose channels are those from `offset` on of the C that are normalised.
template <typename T>
struct Part {
  const T* x;  // (positions, channels) of one picture
  int64_t channels, offset;
};

// Adds, over the positions [first, last), each channel's sum and sum of squares of x minus the channel's
// value at position 0 to sums[0..C) and sums[C..2C). Without that pivot a mean that is large against the
// deviation would cost the variance its digits.
template <typename T>
inline MDM_INLINED void channel_sums(const Part<T>& part, int64_t all_channels, int64_t first, int64_t last,
                                     float* block, double* sums) {
  const int64_t channels = part.channels, whole = channels / kLanes * kLanes;
  const int64_t rows = rows_at_once<T>(channels);
  const T* x = part.x;
  for (int64_t start = first; start < last; start += kBlock) {
    const int64_t end = std::min(last, start + kBlock);
    std::fill(block, block + 2 * channels, 0.0F);
    for (int64_t row = start; row < end; row += rows) {
      const int64_t stop = std::min(end, row + rows);
      for (int64_t c = 0; c < whole; c += kLanes) {
        const Lanes pivot = load_lanes(x + c);
        Lanes sum = load_lanes(block + c), squares = load_lanes(block + channels + c);
        for (int64_t p = row; p < stop; ++p) {
          const Lanes v = load_lanes(x + p * channels + c) - pivot;
          sum += v;
          squares += v * v;
        }
        store_lanes(sum, block + c);
        store_lanes(squares, block + channels + c);
      }
      for (int64_t c = whole; c < channels; ++c) {
        for (int64_t p = row; p < stop; ++p) {
          const float v = load(x[p * channels + c]) - load(x[c]);
          block[c] += v;
          block[channels + c] += v * v;
        }
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      sums[part.offset + c] += block[c];
      sums[all_channels + part.offset + c] += block[channels + c];
    }
  }
}

template <bool kSilu, typename T>
inline MDM_INLINED void normalise(const Part<T>& part, T* y, int64_t all_channels, int64_t first, int64_t last,
                                  const Affine& affine) {
  const int64_t channels = part.channels, whole = channels / kLanes * kLanes;
  const int64_t rows = rows_at_once<T>(channels);
  const float* center = affine.center + part.offset;
  const float* factor = affine.factor + part.offset;
  const float* offset = affine.offset + part.offset;
  for (int64_t row = first; row < last; row += rows) {
    const int64_t stop = std::min(last, row + rows);
    for (int64_t c = 0; c < whole; c += kLanes) {
      const Lanes middle = load_lanes(center + c), slope = load_lanes(factor + c), shift = load_lanes(offset + c);
      for (int64_t p = row; p < stop; ++p) {
        Lanes v = (load_lanes(part.x + p * channels + c) - middle) * slope + shift;
        if (kSilu) v = v / (1.0F + exponential(-v));
        store_lanes(v, y + p * all_channels + part.offset + c);
      }
    }
    for (int64_t c = whole; c < channels; ++c) {
      for (int64_t p = row; p < stop; ++p) {
        float v = (load(part.x[p * channels + c]) - center[c]) * factor[c] + offset[c];
        if (kSilu) v = v / (1.0F + exponential(-v));
        store(v, y[p * all_channels + part.offset + c]);
      }
    }
  }
}

void sums_f32(const Part<float>& part, int64_t all_channels, int64_t first, int64_t last, float* block, double* sums) {
  with_vectors([&]() MDM_INLINED { channel_sums(part, all_channels, first, last, block, sums); });
}
void sums_bf16(const Part<uint16_t>& part, int64_t all_channels, int64_t first, int64_t last, float* block,
               double* sums) {
  with_vectors([&]() MDM_INLINED { channel_sums(part, all_channels, first, last, block, sums); });
}
void normalise_f32(const Part<float>& part, float* y, int64_t all_channels, int64_t first, int64_t last,
                   const Affine& affine, bool silu) {
  with_vectors([&]() MDM_INLINED {
    silu ? normalise<true>(part, y, all_channels, first, last, affine)
         : normalise<false>(part, y, all_channels, first, last, affine);
  });
}
void normalise_bf16(const Part<uint16_t>& part, uint16_t* y, int64_t all_channels, int64_t first, int64_t last,
                    const Affine& affine, bool silu) {
  with_vectors([&]() MDM_INLINED {
    silu ? normalise<true>(part, y, all_channels, first, last, affine)
         : normalise<false>(part, y, all_channels, first, last, affine);
  });
}

// A picture's mean and 1 / deviation per group, from its channel sums. `pivot`: (C).
void fold_sums(const GroupNormArguments& a, const float* pivot, const double* sums, double* statistics) {
  const int64_t width = a.channels / a.groups;
  const auto count = static_cast<double>(a.positions);
  for (int64_t g = 0; g < a.groups; ++g) {
    const int64_t first = g * width, last = first + width;
    double mean = 0;
    for (int64_t c = first; c < last; ++c) mean += pivot[c] + sums[c] / count;
    mean /= static_cast<double>(width);
    double squares = 0;  // sum of (x - mean)^2: within each channel, and of the channel's mean
    for (int64_t c = first; c < last; ++c) {
      const double channel_mean = pivot[c] + sums[c] / count;
      squares +=
          sums[a.channels + c] - sums[c] * sums[c] / count + count * (channel_mean - mean) * (channel_mean - mean);
    }
    const double variance = std::max(squares / (count * static_cast<double>(width)), 0.0);
    statistics[2 * g] = mean;
    statistics[2 * g + 1] = 1.0 / std::sqrt(variance + a.epsilon);
  }
}

// The tensors that hold picture `b`.
template <typename T>
std::vector<Part<T>> parts_of(const GroupNormArguments& a, const GroupNormInput<T>& x, int64_t b) {
  if (x.second == nullptr) return {{x.first + b * a.positions * a.channels, a.channels, 0}};
  const int64_t rest = a.channels - x.first_channels;
  return {{x.first + b * a.positions * x.first_channels, x.first_channels, 0},
          {x.second + b * a.positions * rest, rest, x.first_channels}};
}

template <typename T, typename Sums, typename Normalise>
void run(const GroupNormArguments& a, const GroupNormInput<T>& x, T* y, double* statistics, Sums sums_of,
         Normalise normalise_to) {
  const Chunks chunks(a);
  const int64_t stride = 2 * a.channels, image_size = a.positions * a.channels;
  std::vector<double> partial(static_cast<size_t>(a.batch * chunks.count * stride), 0.0);
  at::parallel_for(0, a.batch * chunks.count, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> block(static_cast<size_t>(stride));
    for (int64_t i = begin; i < end; ++i) {
      for (const Part<T>& part : parts_of(a, x, chunks.image(i))) {
        sums_of(part, a.channels, chunks.first(i), chunks.last(i), block.data(), partial.data() + i * stride);
      }
    }
  });
  std::vector<float> parameters(static_cast<size_t>(3 * a.batch * a.channels)), pivot(static_cast<size_t>(a.channels));
  const auto affine_of = [&](int64_t b) {
    float* at = parameters.data() + 3 * b * a.channels;
    return Affine{at, at + a.channels, at + 2 * a.channels};
  };
  for (int64_t b = 0; b < a.batch; ++b) {
    double* sums = partial.data() + b * chunks.count * stride;
    for (int64_t k = 1; k < chunks.count; ++k) {
      for (int64_t c = 0; c < stride; ++c) sums[c] += sums[k * stride + c];
    }
    for (const Part<T>& part : parts_of(a, x, b)) {
      for (int64_t c = 0; c < part.channels; ++c) pivot[static_cast<size_t>(part.offset + c)] = load(part.x[c]);
    }
    fold_sums(a, pivot.data(), sums, statistics + 2 * b * a.groups);
    norm_kernel::fold_parameters(a, b, statistics + 2 * b * a.groups, affine_of(b));
  }
  at::parallel_for(0, a.batch * chunks.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = chunks.image(i);
      for (const Part<T>& part : parts_of(a, x, b)) {
        normalise_to(part, y + b * image_size, a.channels, chunks.first(i), chunks.last(i), affine_of(b), a.silu);
      }
    }
  });
}

}  // namespace

void group_norm_channels_last(const GroupNormArguments& arguments, const GroupNormInput<float>& x, float* y,
                              double* statistics) {
  run(arguments, x, y, statistics, sums_f32, normalise_f32);
}

void group_norm_channels_last_bf16(const GroupNormArguments& arguments, const GroupNormInput<uint16_t>& x, uint16_t* y,
                                   double* statistics) {
  run(arguments, x, y, statistics, sums_bf16, normalise_bf16);
}

}  // namespace mdm::ops
