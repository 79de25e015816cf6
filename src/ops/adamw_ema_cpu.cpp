#include "ops/adamw_ema_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ops/instructions.h"

namespace mdm::ops {
namespace {

// Only additions, multiplications, divisions and square roots, none fused: all instruction sets give the same bits.

constexpr int64_t kStepGrain = 1 << 15;  // elements a thread takes at a time
constexpr int64_t kSumBlock = 1 << 16;   // elements whose squares are summed on their own
constexpr int64_t kSumLanes = 16;

inline MDM_INLINED uint16_t to_bfloat16(float value) {  // round to nearest even; a NaN stays one
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<uint16_t>(value != value ? 0x7FC0U : rounded);
}

inline MDM_INLINED void update_range(float* __restrict weights, const float* __restrict gradients,
                                     float* __restrict exp_avg, float* __restrict exp_avg_sq,
                                     const AdamNumbers& numbers, int64_t count) {
  const AdamNumbers n = numbers;
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradients[i] * n.gradient_factor;
    const float m = exp_avg[i] + n.blend1 * (g - exp_avg[i]);
    const float v = n.beta2 * exp_avg_sq[i] + n.blend2 * (g * g);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    weights[i] = weights[i] * n.shrink - n.step_size * (m / (std::sqrt(v) * n.root_scale + n.eps));
  }
}

inline MDM_INLINED void average_range(float* __restrict ema, const float* __restrict weights, float blend,
                                      int64_t count) {
  for (int64_t i = 0; i < count; ++i) ema[i] = ema[i] + blend * (weights[i] - ema[i]);
}

inline MDM_INLINED void round_range(uint16_t* __restrict compute, const float* __restrict weights, int64_t count) {
  for (int64_t i = 0; i < count; ++i) compute[i] = to_bfloat16(weights[i]);
}

inline MDM_INLINED double sum_block(const float* values, int64_t count) {
  double lanes[kSumLanes] = {};
  int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) {
    for (int64_t k = 0; k < kSumLanes; ++k) {
      const double v = values[i + k];
      lanes[k] += v * v;
    }
  }
  for (; i < count; ++i) lanes[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  double sum = 0;
  for (double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void adamw_ema_cpu(const AdamPointers& p, const AdamNumbers& numbers, int64_t count) {
  constexpr int64_t kTile = 2048;  // stays in the first cache between the passes
  at::parallel_for(0, count, kStepGrain, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kTile) {
      const int64_t size = std::min(kTile, end - first);
      with_vectors([&]() MDM_INLINED {
        update_range(p.weights + first, p.gradients + first, p.exp_avg + first, p.exp_avg_sq + first, numbers, size);
        if (p.ema != nullptr) average_range(p.ema + first, p.weights + first, numbers.ema_blend, size);
        if (p.compute != nullptr) round_range(p.compute + first, p.weights + first, size);
      });
    }
  });
}

double sum_of_squares_cpu(const float* values, int64_t count) {
  const int64_t blocks = (count + kSumBlock - 1) / kSumBlock;
  std::vector<double> sums(static_cast<size_t>(blocks));
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kSumBlock;
      double& sum = sums[static_cast<size_t>(b)];
      with_vectors([&]() MDM_INLINED { sum = sum_block(values + first, std::min(kSumBlock, count - first)); });
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace mdm::ops
