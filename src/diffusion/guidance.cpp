// Classifier-free guidance.
#include "mdm/diffusion/guidance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/std.h>

#include <cmath>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/diffusion/prediction.h"

namespace mdm {
namespace {

int64_t rows_of(const Conditioning& conditioning) {
  if (conditioning.pooled.defined()) return conditioning.pooled.size(0);
  for (const at::Tensor& micro : conditioning.micro) {
    if (micro.defined()) return micro.size(0);
  }
  return 0;
}

/// `guided` moved towards the standard deviation that `conditional` has, per example.
at::Tensor rescaled(const at::Tensor& guided, const at::Tensor& conditional, double share) {
  const auto deviation = [](const at::Tensor& x) { return at::std(x, {1, 2, 3}, /*unbiased=*/true, /*keepdim=*/true); };
  const at::Tensor factor = deviation(conditional) / deviation(guided).clamp_min(1e-12);
  return guided * (factor * share + (1 - share));
}

}  // namespace

Conditioning condition_pairs(const UNet& model, const TextEmbedding* text, const MicroValues& micros, int64_t batch) {
  MicroValues both;
  for (const auto& [name, value] : micros) {
    both[name] = value.dim() == 1 && value.size(0) == batch ? at::cat({value, value}) : value;
  }
  return model.condition(text, both, 2 * batch);
}

GuidedModel::GuidedModel(const UNet& model, Conditioning conditioning, const GuidanceOptions& options,
                         const ForwardContext& context)
    : model_(&model),
      conditioning_(std::move(conditioning)),
      options_(options),
      context_(context),
      rows_(rows_of(conditioning_)) {
  if (!std::isfinite(options_.scale)) fail<ConfigError>("guidance_scale is ", options_.scale, ", it must be finite");
  if (!(options_.rescale >= 0 && options_.rescale <= 1)) {
    fail<ConfigError>("guidance_rescale is ", options_.rescale, ", allowed are numbers from 0 to 1");
  }
  if (!(options_.start >= 0 && options_.start < options_.end && options_.end <= 1)) {
    fail<ConfigError>("guidance acts from ", options_.start, " to ", options_.end,
                      ", but 0 <= guidance_start < guidance_end <= 1 is needed");
  }
  if (options_.scale != 1 && rows_ == 0) {
    fail<ConfigError>("guidance_scale is ", options_.scale,
                      ", but the model has no conditioning: only guidance_scale 1 is possible");
  }
}

void GuidedModel::begin_step(const SamplingStep& step) {
  const double share = static_cast<double>(step.index) / static_cast<double>(step.count);
  active_ = share >= options_.start && (share < options_.end || options_.end >= 1);
}

const Conditioning& GuidedModel::conditional(int64_t batch) {
  if (rows_ == batch || rows_ == 0) return conditioning_;
  if (conditional_rows_ != batch) {
    if (rows_ != 2 * batch) fail("the conditioning has ", rows_, " rows for a batch of ", batch, " images");
    conditional_ = conditioning_.rows(batch, batch);
    conditional_rows_ = batch;
  }
  return conditional_;
}

std::vector<at::Tensor> GuidedModel::forward(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                             const Conditioning& conditioning) const {
  std::vector<at::Tensor> out = graphs_ != nullptr ? (*graphs_)(x_t, times, conditioning, context_)
                                                   : model_->forward(x_t, times, conditioning, context_);
  if (out.size() == 1) out[0] = bound_prediction(out[0], options_.output_scale);
  return out;
}

// Unconditional and conditional rows.
std::vector<at::Tensor> GuidedModel::forward_pairs(const std::vector<at::Tensor>& x_t, const at::Tensor& times) {
  const int64_t batch = times.size(0);
  if (rows_ != 2 * batch) {
    fail("guidance needs ", 2 * batch, " rows of conditioning for ", batch, " images, but there are ", rows_);
  }
  std::vector<at::Tensor> both;
  for (const at::Tensor& x : x_t) both.push_back(at::cat({x, x}));
  std::vector<at::Tensor> out = forward(both, at::cat({times, times}), conditioning_);
  if (keeps_halves_) {
    halves_ = {times[0].item<int64_t>(), x_t, {}, {}};
    for (const at::Tensor& prediction : out) {
      halves_.unconditional.push_back(prediction.narrow(0, 0, batch));
      halves_.conditional.push_back(prediction.narrow(0, batch, batch));
    }
  }
  return out;
}

std::vector<at::Tensor> GuidedModel::operator()(const std::vector<at::Tensor>& x_t, const at::Tensor& times) {
  const int64_t batch = times.size(0);
  if (options_.scale == 1 || !active_) {
    if (keeps_halves_) halves_ = {times[0].item<int64_t>(), x_t, {}, {}};
    return forward(x_t, times, conditional(batch));
  }
  std::vector<at::Tensor> out = forward_pairs(x_t, times);
  for (at::Tensor& prediction : out) {
    const at::Tensor unconditional = prediction.narrow(0, 0, batch), conditional = prediction.narrow(0, batch, batch);
    const at::Tensor guided = unconditional + (conditional - unconditional) * options_.scale;
    prediction = options_.rescale > 0 ? rescaled(guided, conditional, options_.rescale) : guided;
  }
  return out;
}

ModelCallback GuidedModel::callback() {
  return [this](const std::vector<at::Tensor>& x_t, const at::Tensor& times) -> ModelOutput {
    const bool joins_later = options_.scale != 1 && active_ && options_.rescale == 0;
    if (joins_later) return {forward_pairs(x_t, times), options_.scale};
    return (*this)(x_t, times);
  };
}

}  // namespace mdm
