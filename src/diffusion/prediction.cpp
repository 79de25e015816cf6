// Conversions between x_0, eps and v, and thresholds of x_0.
#include "mdm/diffusion/prediction.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tanh.h>

#include <cmath>

#include "mdm/ops/sampler_step.h"

namespace mdm {
namespace {

using Kind = ops::Predicts;

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

}  // namespace

ops::Predicts predicts(PredictionType type) {
  switch (type) {
    case PredictionType::kX0: return Kind::kX0;
    case PredictionType::kVPrediction: return Kind::kV;
    case PredictionType::kDdpm:
    case PredictionType::kDdim: break;
  }
  return Kind::kEps;
}

ops::ThresholdRule threshold_rule(ThresholdType type) {
  switch (type) {
    case ThresholdType::kNone: return {};
    case ThresholdType::kDynamic: return {ops::Bounds::kQuantile, 0.995F, 100};
    case ThresholdType::kDynamicIf: return {ops::Bounds::kQuantile, 0.95F, 1.5};
    default: return {ops::Bounds::kClip};
  }
}

bool same_prediction(PredictionType a, PredictionType b) { return predicts(a) == predicts(b); }

at::Tensor add_noise(const at::Tensor& x_0, const at::Tensor& eps, const at::Tensor& gamma) {
  return noisy(x_0, eps, gamma);
}
at::Tensor add_noise(const at::Tensor& x_0, const at::Tensor& eps, double gamma) { return noisy(x_0, eps, gamma); }

at::Tensor prediction_target(PredictionType type, const at::Tensor& x_0, const at::Tensor& eps,
                             const at::Tensor& gamma) {
  switch (predicts(type)) {
    case Kind::kX0: return x_0;
    case Kind::kV: return eps * root(gamma) - x_0 * root(1 - gamma);
    case Kind::kEps: break;
  }
  return eps;
}

at::Tensor convert_prediction(const at::Tensor& prediction, PredictionType from, PredictionType to,
                              const at::Tensor& x_t, const at::Tensor& gamma) {
  return converted(prediction, predicts(from), predicts(to), x_t, gamma);
}
at::Tensor convert_prediction(const at::Tensor& prediction, PredictionType from, PredictionType to,
                              const at::Tensor& x_t, double gamma) {
  return converted(prediction, predicts(from), predicts(to), x_t, gamma);
}

at::Tensor bound_prediction(const at::Tensor& prediction, double s) {
  return s == 0 ? prediction : at::tanh(prediction / s) * s;
}

at::Tensor threshold_x_0(const at::Tensor& x_0, ThresholdType type, double image_scale) {
  return ops::threshold(x_0, threshold_rule(type), image_scale);
}

}  // namespace mdm
