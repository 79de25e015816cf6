// What a sampling step does to one number: the same operations in the same order on CPU and GPU. Compilers must not
// fuse them (-ffp-contract=off, --fmad=false).
#pragma once

#include <cstdint>

#include "core/philox_math.h"
#include "mdm/core/random.h"
#include "mdm/ops/sampler_rule.h"

namespace mdm::ops {

// One level, in plain types. Strides are in elements and of the prediction; all else is contiguous.
struct SamplerArguments {
  const float* x_t = nullptr;
  const float* prediction = nullptr;
  const float* noise = nullptr;   // null: from the seeds, or none
  const float* bounds = nullptr;  // (batch), of Stage::kFinish
  float* x_0 = nullptr;
  float* x_next = nullptr;  // null: not wanted
  int64_t batch = 0, channels = 0, positions = 0;
  int64_t row_stride = 0, channel_stride = 0, position_stride = 0;
  float signal = 1, deviation = 0;  // square roots of gamma and 1 - gamma
  float image_scale = 1;
  float next_x_0 = 0, next_x_t = 0, next_noise = 0;
  uint32_t layer = 0;

  MDM_HOST_DEVICE int64_t numbers() const { return channels * positions; }  // of an image
};

// A quantile divides the work: it needs all numbers of an image first.
enum class Stage {
  kWhole,    // bounds are known: none, or 1
  kPredict,  // x_0 receives the image
  kFinish,   // x_0 holds the image; bounds are those of each
};

struct SamplerPlan {
  Predicts predicts = Predicts::kV;
  Stage stage = Stage::kWhole;
  bool clips = false;  // in Stage::kWhole
  bool guided = false;
  float guidance = 1;
  const uint64_t* seeds = nullptr;  // (batch), or null
  uint64_t step = 0;

  MDM_HOST_DEVICE bool draws(const SamplerArguments& a) const {
    return a.x_next != nullptr && a.next_noise != 0 && a.noise == nullptr && seeds != nullptr;
  }
};

MDM_HOST_DEVICE float guided(float unconditional, float conditional, float guidance) {
  return unconditional + (conditional - unconditional) * guidance;
}

MDM_HOST_DEVICE float x_0_from(Predicts predicts, float p, float x, float signal, float deviation) {
  if (predicts == Predicts::kV) return x * signal - p * deviation;
  return predicts == Predicts::kEps ? (x - p * deviation) / signal : p;
}

// NaN stays NaN.
MDM_HOST_DEVICE float clipped(float v, float bound) {
  const float w = v < -bound ? -bound : v;
  return w > bound ? bound : w;
}

MDM_HOST_DEVICE float next_from(const SamplerArguments& a, float x_0, float x, float noise) {
  return x_0 * a.next_x_0 + x * a.next_x_t + noise * a.next_noise;
}

MDM_HOST_DEVICE philox::Sequence step_sequence(uint64_t seed, uint64_t step, uint32_t layer) {
  return philox::sequence_at(seed, step, 0, layer, static_cast<uint32_t>(RandomStream::kStep), 0);
}

}  // namespace mdm::ops
