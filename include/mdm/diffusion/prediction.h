// What a denoising network predicts, and the arithmetic between x_0, eps, v and x_t.
// gamma is a (B, 1, 1, 1) tensor (training: a step of its own for each example) or one number (sampling).
// x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps; v = sqrt(gamma) eps - sqrt(1 - gamma) x_0 (arXiv 2202.00512).
// All tensors are (B, C, H, W); functions of tensors can be differentiated.
#pragma once

#include <ATen/core/Tensor.h>

#include "mdm/config/diffusion_config.h"
#include "mdm/ops/sampler_rule.h"

namespace mdm {

/// Whether both mean the same (kDdpm and kDdim both are eps).
bool same_prediction(PredictionType a, PredictionType b);

/// The types and thresholds (see threshold_x_0) of a config as ops knows them.
ops::Predicts predicts(PredictionType type);
ops::ThresholdRule threshold_rule(ThresholdType type);

/// x_t.
at::Tensor add_noise(const at::Tensor& x_0, const at::Tensor& eps, const at::Tensor& gamma);
at::Tensor add_noise(const at::Tensor& x_0, const at::Tensor& eps, double gamma);

/// What a perfect network of this type would predict.
at::Tensor prediction_target(PredictionType type, const at::Tensor& x_0, const at::Tensor& eps,
                             const at::Tensor& gamma);

/// A prediction of type `from` as one of type `to`, for the x_t it was made for. x_0 from eps needs
/// gamma > 0, eps or v from x_0 need gamma < 1, v from eps needs gamma > 0.
at::Tensor convert_prediction(const at::Tensor& prediction, PredictionType from, PredictionType to,
                              const at::Tensor& x_t, const at::Tensor& gamma);
at::Tensor convert_prediction(const at::Tensor& prediction, PredictionType from, PredictionType to,
                              const at::Tensor& x_t, double gamma);

/// s tanh(prediction / s), or the prediction itself for s = 0 (model_output_scale).
at::Tensor bound_prediction(const at::Tensor& prediction, double s);

/// Brings a predicted x_0 back to where images are. `image_scale` s: x_0 is an image divided by s; the
/// bounds are those of the image, and the result is divided by s again (kNone: x_0 as it is).
///   kClip       clip to [-1, 1];
///   kDynamic    arXiv 2205.11487: clip to [-q, q] and divide by q, with q the quantile 0.995 of |x| of
///               each example (linear interpolation), clamped to [1, 100];
///   kDynamicIf  the same with 0.95 and [1, 1.5].
/// An example with a NaN becomes NaN.
at::Tensor threshold_x_0(const at::Tensor& x_0, ThresholdType type, double image_scale = 1);

}  // namespace mdm
