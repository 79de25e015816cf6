// What gradients are multiplied by, from sums over all of them: the same on a CPU and on a device.
#pragma once

#include <cmath>

#include "core/philox_math.h"  // MDM_HOST_DEVICE

namespace mdm::ops {

MDM_HOST_DEVICE bool is_finite(double value) { return value - value == 0; }

/// See DeviceClip. False: no step may be made.
MDM_HOST_DEVICE bool clip_factor(double squares, double loss, double weight, double clip_norm, double& factor) {
  constexpr double kEpsilon = 1e-6;
  if (weight == 0 || !is_finite(weight) || !is_finite(loss)) return false;
#if defined(__CUDA_ARCH__)
  const double norm = __dsqrt_rn(squares) / weight;
#else
  const double norm = std::sqrt(squares) / weight;
#endif
  if (!is_finite(norm)) return false;
  const double share = clip_norm / (norm + kEpsilon);
  factor = (share < 1 ? share : 1.0) / weight;
  return true;
}

}  // namespace mdm::ops
