// Backward pass of GroupNorm with modulation and SiLU. With n = (x - mean) / deviation, v = n A + D where
// A = weight (1 + scale) and D = bias (1 + scale) + shift, y = silu(v) or v, and sums over the positions
// S1 = sum dv, S2 = sum dv n per picture and channel:
//   d bias = sum_b (1 + scale) S1, d weight = sum_b (1 + scale) S2, d shift = S1, d scale = weight S2 + bias S1,
//   dx = (A dv - mean_group(A S1) - n mean_group(A S2)) / deviation.
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "ops/group_norm_math.h"

namespace mdm::ops {
namespace {

using norm_kernel::Affine;
using norm_kernel::Chunks;
using norm_kernel::kBlock;
using vector::exponential;
using vector::load;
using vector::store;

// dx = dv * slope + constant + (x - center) * linear per channel.
struct Pullback {
  const float* slope;
  const float* constant;
  const float* linear;
};

// The gradient in front of the activation. `normal`: (x - center), of which v is made.
inline MDM_INLINED float before_activation(float dy, float normal, float factor, float offset, bool silu) {
  if (!silu) return dy;
  const float v = normal * factor + offset;
  const float sigmoid = 1.0F / (1.0F + exponential(-v));
  return dy * sigmoid * (1.0F + v * (1.0F - sigmoid));
}

// Adds each channel's sums of dv and dv (x - center) over positions to sums[0..C) and sums[C..2C).
template <typename T, bool kSilu>
inline MDM_INLINED void gradient_sums(const T* x, const T* dy, int64_t channels, int64_t first, int64_t last,
                                      const Affine& affine, float* block, double* sums) {
  const float* center = affine.center;
  const float* factor = affine.factor;
  const float* offset = affine.offset;
  float* products = block + channels;
  for (int64_t start = first; start < last; start += kBlock) {
    const int64_t end = std::min(last, start + kBlock);
    std::fill(block, block + 2 * channels, 0.0F);
    for (int64_t p = start; p < end; ++p) {
      const T* row = x + p * channels;
      const T* gradient = dy + p * channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) {
        const float normal = load(row[c]) - center[c];
        const float dv = before_activation(load(gradient[c]), normal, factor[c], offset[c], kSilu);
        block[c] += dv;
        products[c] += dv * normal;
      }
    }
    for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += block[c];
  }
}

template <typename T, bool kSilu>
inline MDM_INLINED void input_gradient(const T* x, const T* dy, T* dx, int64_t channels, int64_t first, int64_t last,
                                       const Affine& affine, const Pullback& pull) {
  const float* center = affine.center;
  const float* factor = affine.factor;
  const float* offset = affine.offset;
  const float* slope = pull.slope;
  const float* constant = pull.constant;
  const float* linear = pull.linear;
  for (int64_t p = first; p < last; ++p) {
    const T* row = x + p * channels;
    const T* gradient = dy + p * channels;
    T* target = dx + p * channels;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) {
      const float normal = load(row[c]) - center[c];
      const float dv = before_activation(load(gradient[c]), normal, factor[c], offset[c], kSilu);
      store(dv * slope[c] + (constant[c] + normal * linear[c]), target[c]);
    }
  }
}

template <typename T>
inline MDM_INLINED void any_sums(const T* x, const T* dy, int64_t channels, int64_t first, int64_t last,
                                 const Affine& affine, bool silu, float* block, double* sums) {
  if (silu) {
    gradient_sums<T, true>(x, dy, channels, first, last, affine, block, sums);
  } else {
    gradient_sums<T, false>(x, dy, channels, first, last, affine, block, sums);
  }
}

template <typename T>
inline MDM_INLINED void any_input(const T* x, const T* dy, T* dx, int64_t channels, int64_t first, int64_t last,
                                  const Affine& affine, bool silu, const Pullback& pull) {
  if (silu) {
    input_gradient<T, true>(x, dy, dx, channels, first, last, affine, pull);
  } else {
    input_gradient<T, false>(x, dy, dx, channels, first, last, affine, pull);
  }
}

void backward_sums_f32(const float* x, const float* dy, int64_t channels, int64_t first, int64_t last,
                       const Affine& affine, bool silu, float* block, double* sums) {
  with_vectors([&]() MDM_INLINED { any_sums(x, dy, channels, first, last, affine, silu, block, sums); });
}
void backward_sums_bf16(const uint16_t* x, const uint16_t* dy, int64_t channels, int64_t first, int64_t last,
                        const Affine& affine, bool silu, float* block, double* sums) {
  with_vectors([&]() MDM_INLINED { any_sums(x, dy, channels, first, last, affine, silu, block, sums); });
}
void backward_input_f32(const float* x, const float* dy, float* dx, int64_t channels, int64_t first, int64_t last,
                        const Affine& affine, bool silu, const Pullback& pull) {
  with_vectors([&]() MDM_INLINED { any_input(x, dy, dx, channels, first, last, affine, silu, pull); });
}
void backward_input_bf16(const uint16_t* x, const uint16_t* dy, uint16_t* dx, int64_t channels, int64_t first,
                         int64_t last, const Affine& affine, bool silu, const Pullback& pull) {
  with_vectors([&]() MDM_INLINED { any_input(x, dy, dx, channels, first, last, affine, silu, pull); });
}

// What a picture's sums add to the parameters' gradients (in float64), and what they make of its input's.
void fold_gradients(const GroupNormArguments& a, int64_t b, const double* statistics, const double* sums,
                    const GroupNormGradients& gradients, double* weight_bias, float* slope, float* constant,
                    float* linear) {
  const int64_t width = a.channels / a.groups;
  const double count = static_cast<double>(a.positions) * static_cast<double>(width);
  for (int64_t g = 0; g < a.groups; ++g) {
    const double mean = statistics[2 * g], inverse = statistics[2 * g + 1];
    const double residue = static_cast<double>(static_cast<float>(mean)) - mean;  // center - mean
    double mean1 = 0, mean2 = 0;
    for (int64_t c = g * width; c < (g + 1) * width; ++c) {
      const double scale = a.scale != nullptr ? 1.0 + a.scale[b * a.channels + c] : 1.0;
      const double sum1 = sums[c], sum2 = (sums[a.channels + c] + residue * sum1) * inverse;
      weight_bias[c] += scale * sum2;
      weight_bias[a.channels + c] += scale * sum1;
      if (a.scale != nullptr) {
        gradients.scale[b * a.channels + c] = static_cast<float>(a.weight[c] * sum2 + a.bias[c] * sum1);
        gradients.shift[b * a.channels + c] = static_cast<float>(sum1);
      }
      mean1 += a.weight[c] * scale * sum1 / count;
      mean2 += a.weight[c] * scale * sum2 / count;
    }
    for (int64_t c = g * width; c < (g + 1) * width; ++c) {
      const double scale = a.scale != nullptr ? 1.0 + a.scale[b * a.channels + c] : 1.0;
      slope[c] = static_cast<float>(inverse * a.weight[c] * scale);
      linear[c] = static_cast<float>(-inverse * inverse * mean2);
      constant[c] = static_cast<float>(-inverse * mean1 - inverse * inverse * mean2 * residue);
    }
  }
}

template <typename T, typename Sums, typename Input>
void run_backward(const GroupNormArguments& a, const double* statistics, const T* x, const T* dy, T* dx,
                  const GroupNormGradients& gradients, Sums sums_of, Input input_of) {
  const Chunks chunks(a);
  const int64_t stride = 2 * a.channels, image_size = a.positions * a.channels;
  std::vector<float> parameters(static_cast<size_t>(6 * a.batch * a.channels));
  const auto row = [&](int64_t b, int64_t k) { return parameters.data() + (6 * b + k) * a.channels; };
  const auto affine_of = [&](int64_t b) { return Affine{row(b, 0), row(b, 1), row(b, 2)}; };
  for (int64_t b = 0; b < a.batch; ++b) norm_kernel::fold_parameters(a, b, statistics + 2 * b * a.groups, affine_of(b));

  std::vector<double> partial(static_cast<size_t>(a.batch * chunks.count * stride), 0.0);
  at::parallel_for(0, a.batch * chunks.count, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> block(static_cast<size_t>(stride));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = chunks.image(i) * image_size;
      sums_of(x + image, dy + image, a.channels, chunks.first(i), chunks.last(i), affine_of(chunks.image(i)), a.silu,
              block.data(), partial.data() + i * stride);
    }
  });
  std::vector<double> weight_bias(static_cast<size_t>(stride), 0.0);
  for (int64_t b = 0; b < a.batch; ++b) {
    double* sums = partial.data() + b * chunks.count * stride;
    for (int64_t k = 1; k < chunks.count; ++k) {
      for (int64_t c = 0; c < stride; ++c) sums[c] += sums[k * stride + c];
    }
    fold_gradients(a, b, statistics + 2 * b * a.groups, sums, gradients, weight_bias.data(), row(b, 3), row(b, 4),
                   row(b, 5));
  }
  std::copy_n(weight_bias.data(), a.channels, gradients.weight);
  std::copy_n(weight_bias.data() + a.channels, a.channels, gradients.bias);
  at::parallel_for(0, a.batch * chunks.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = chunks.image(i), image = b * image_size;
      input_of(x + image, dy + image, dx + image, a.channels, chunks.first(i), chunks.last(i), affine_of(b), a.silu,
               Pullback{row(b, 3), row(b, 4), row(b, 5)});
    }
  });
}

}  // namespace

void group_norm_backward_channels_last(const GroupNormArguments& arguments, const double* statistics, const float* x,
                                       const float* dy, float* dx, const GroupNormGradients& gradients) {
  run_backward(arguments, statistics, x, dy, dx, gradients, backward_sums_f32, backward_input_f32);
}

void group_norm_backward_channels_last_bf16(const GroupNormArguments& arguments, const double* statistics,
                                            const uint16_t* x, const uint16_t* dy, uint16_t* dx,
                                            const GroupNormGradients& gradients) {
  run_backward(arguments, statistics, x, dy, dx, gradients, backward_sums_bf16, backward_input_bf16);
}

}  // namespace mdm::ops
