// Conversions between x_0, eps and v, and thresholds of x_0.
#include "mdm/diffusion/prediction.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/quantile.h>
#include <ATen/ops/tanh.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "mdm/core/error.h"

namespace mdm {
namespace {

enum class Kind { kX0, kEps, kV };

Kind kind_of(PredictionType type) {
  switch (type) {
    case PredictionType::kX0: return Kind::kX0;
    case PredictionType::kVPrediction: return Kind::kV;
    case PredictionType::kDdpm:
    case PredictionType::kDdim: break;
  }
  return Kind::kEps;
}

double root(double x) { return std::sqrt(x); }
at::Tensor root(const at::Tensor& x) { return x.sqrt(); }

template <typename Gamma>
at::Tensor noisy(const at::Tensor& x_0, const at::Tensor& eps, const Gamma& gamma) {
  return x_0 * root(gamma) + eps * root(1 - gamma);
}

// With a = sqrt(gamma), s = sqrt(1 - gamma). Where the way from eps to v or back through x_0 cancels, the
// direct formula is used.
template <typename Gamma>
at::Tensor converted(const at::Tensor& p, Kind from, Kind to, const at::Tensor& x_t, const Gamma& gamma) {
  if (from == to) return p;
  const auto a = root(gamma);
  const auto s = root(1 - gamma);
  if (from == Kind::kX0) return to == Kind::kEps ? (x_t - p * a) / s : (x_t * a - p) / s;
  if (from == Kind::kEps) return to == Kind::kX0 ? (x_t - p * s) / a : (p - x_t * s) / a;
  return to == Kind::kX0 ? x_t * a - p * s : x_t * s + p * a;
}

/// Quantile `q` of |x| of each example, linear between the two nearest ranks; NaN where there is one.
at::Tensor abs_quantile(const at::Tensor& x, float q) {
  const int64_t batch = x.size(0), count = x.numel() / std::max<int64_t>(batch, 1);
  if (!x.is_cpu()) return at::quantile(x.reshape({batch, count}).abs(), q, 1);
  const at::Tensor values = x.contiguous();
  at::Tensor out = at::empty({batch}, x.options());
  const auto* in = static_cast<const float*>(values.const_data_ptr());
  auto* result = static_cast<float*>(out.mutable_data_ptr());
  const float rank = q * static_cast<float>(count - 1);  // float32, as torch.quantile
  const int64_t below = std::min(static_cast<int64_t>(rank), count - 1);
  const float weight = rank - static_cast<float>(below);
  at::parallel_for(0, batch, 1, [&](int64_t first, int64_t last) {
    // Without their sign the bits of floats are in the order of their values, and NaNs come last.
    std::vector<uint32_t> bits(static_cast<size_t>(count));
    const auto value = [](uint32_t pattern) {
      float f;
      std::memcpy(&f, &pattern, sizeof f);
      return f;
    };
    for (int64_t i = first; i < last; ++i) {
      std::memcpy(bits.data(), in + i * count, bits.size() * sizeof(uint32_t));
      uint32_t largest = 0;
      for (uint32_t& b : bits) largest = std::max(largest, b &= 0x7fffffffu);
      if (std::isnan(value(largest))) {
        result[i] = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      std::nth_element(bits.begin(), bits.begin() + below, bits.end());
      const float low = value(bits[static_cast<size_t>(below)]);
      const bool has_next = below + 1 < count;
      const float high = has_next ? value(*std::min_element(bits.begin() + below + 1, bits.end())) : low;
      result[i] = low + weight * (high - low);
    }
  });
  return out;
}

at::Tensor dynamic_threshold(const at::Tensor& x, float q, double largest) {
  const at::Tensor values = x.scalar_type() == at::kFloat ? x : x.to(at::kFloat);
  const at::Tensor bound = abs_quantile(values, q).clamp(1, largest).view({-1, 1, 1, 1});
  return (at::maximum(at::minimum(values, bound), -bound) / bound).to(x.scalar_type());
}

}  // namespace

bool same_prediction(PredictionType a, PredictionType b) { return kind_of(a) == kind_of(b); }

at::Tensor add_noise(const at::Tensor& x_0, const at::Tensor& eps, const at::Tensor& gamma) {
  return noisy(x_0, eps, gamma);
}
at::Tensor add_noise(const at::Tensor& x_0, const at::Tensor& eps, double gamma) { return noisy(x_0, eps, gamma); }

at::Tensor prediction_target(PredictionType type, const at::Tensor& x_0, const at::Tensor& eps,
                             const at::Tensor& gamma) {
  switch (kind_of(type)) {
    case Kind::kX0: return x_0;
    case Kind::kV: return eps * root(gamma) - x_0 * root(1 - gamma);
    case Kind::kEps: break;
  }
  return eps;
}

at::Tensor convert_prediction(const at::Tensor& prediction, PredictionType from, PredictionType to,
                              const at::Tensor& x_t, const at::Tensor& gamma) {
  return converted(prediction, kind_of(from), kind_of(to), x_t, gamma);
}
at::Tensor convert_prediction(const at::Tensor& prediction, PredictionType from, PredictionType to,
                              const at::Tensor& x_t, double gamma) {
  return converted(prediction, kind_of(from), kind_of(to), x_t, gamma);
}

at::Tensor bound_prediction(const at::Tensor& prediction, double s) {
  return s == 0 ? prediction : at::tanh(prediction / s) * s;
}

at::Tensor threshold_x_0(const at::Tensor& x_0, ThresholdType type, double image_scale) {
  if (type == ThresholdType::kNone) return x_0;
  const at::Tensor image = image_scale == 1 ? x_0 : x_0 * image_scale;
  at::Tensor out;
  switch (type) {
    case ThresholdType::kDynamic: out = dynamic_threshold(image, 0.995f, 100); break;
    case ThresholdType::kDynamicIf: out = dynamic_threshold(image, 0.95f, 1.5); break;
    default: out = image.clamp(-1, 1);
  }
  return image_scale == 1 ? out : out / image_scale;
}

}  // namespace mdm
