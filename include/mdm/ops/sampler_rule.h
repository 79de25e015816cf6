// What a step of sampling does, in plain types.
#pragma once

namespace mdm::ops {

/// What a prediction means, with a = sqrt(gamma) and s = sqrt(1 - gamma): x_0 itself, (x_t - s eps) / a, a x_t - s v.
enum class Predicts { kX0, kEps, kV };

/// How x_0 is brought back to the range of images. x_0 is an image divided by the level's image_scale; the bounds are
/// those of the image.
enum class Bounds {
  kNone,
  kClip,      ///< to [-1, 1]
  kQuantile,  ///< to [-q, q], and divided by q: the quantile of |image| of each example, clamped to [1, largest]
};

struct ThresholdRule {
  Bounds bounds = Bounds::kNone;
  float quantile = 1;
  double largest = 1;
};

/// What is the same for all levels.
struct SamplerRule {
  Predicts predicts = Predicts::kV;
  ThresholdRule threshold;
  double guidance = 1;   ///< not 1: predictions have 2 B rows
  bool advances = true;  ///< false: x_0 alone is wanted
};

}  // namespace mdm::ops
