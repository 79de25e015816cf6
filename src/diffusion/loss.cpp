// The training loss: what goes into the model, and how far its predictions are off.
#include "mdm/diffusion/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/prediction.h"

namespace mdm {

std::vector<double> cumulative_ratio(const std::vector<double>& mixed_ratio, size_t levels) {
  if (mixed_ratio.empty()) return {};
  if (mixed_ratio.size() != levels) {
    fail<ConfigError>("mixed_ratio has ", mixed_ratio.size(), " numbers, but the model has ", levels, " levels");
  }
  std::vector<double> out;
  double sum = 0;
  for (double part : mixed_ratio) {
    if (!(part > 0 && std::isfinite(part))) fail<ConfigError>("mixed_ratio holds ", part, "; all must be above 0");
    out.push_back(sum += part);
  }
  for (double& share : out) share /= sum;
  return out;
}

std::vector<int64_t> level_rows(const std::vector<double>& ratio, size_t levels, int64_t batch) {
  if (ratio.empty()) return std::vector<int64_t>(levels, batch);
  std::vector<int64_t> out;
  for (size_t i = 0; i < levels; ++i) {
    out.push_back(static_cast<int64_t>(ratio[i] * static_cast<double>(batch)));
    if (out.back() == 0) {
      fail<ConfigError>("mixed_ratio leaves level ", i, " (0 = highest resolution) without any of the ", batch,
                        " images of a batch: it gets a share of ", ratio[i], ". The batch must have at least ",
                        static_cast<int64_t>(std::ceil(1 / ratio[i])), " images");
    }
  }
  return out;
}

at::Tensor LossValue::mean() const { return sum / weight; }

DiffusionLoss::DiffusionLoss(const DiffusionConfig& config, const ModelConfig& model, at::Device device,
                             const Compat& compat)
    : config_(config),
      schedule_(config.sampler_config, level_scales(model)),
      compat_(compat),
      target_(config.sampler_config.loss_target_type.value_or(config.sampler_config.prediction_type)) {
  const size_t levels = schedule_.levels();
  const bool nested = levels > 1;
  if (nested) {
    if (!config_.no_use_residual) fail<ConfigError>("no_use_residual: false is not supported, set it to true");
    ratio_ = cumulative_ratio(config_.mixed_ratio, levels);
    level_weights_ = config_.multi_res_weights;
  }
  if (!level_weights_.empty()) {
    if (level_weights_.size() != levels) {
      fail<ConfigError>("multi_res_weights has ", level_weights_.size(), " numbers, but the model has ", levels,
                        " levels");
    }
    if (!config_.use_double_loss) {
      fail<ConfigError>(
          "multi_res_weights has no meaning without use_double_loss: true, which counts the loss of "
          "all levels");
    }
  } else {
    level_weights_.assign(levels, 1);
  }
  for (const UNetConfig& level : model.levels) frames_.push_back(level.temporal_mode && !level.temporal_spatial_ds);

  const std::vector<float>& weights = schedule_.loss_weights();
  if (config_.use_vdm_loss_weights) {
    const auto bad = std::find_if(weights.begin(), weights.end(), [](float w) { return !std::isfinite(w); });
    if (bad != weights.end()) {
      fail<ConfigError>("use_vdm_loss_weights can't be used with this noise schedule: the weight of step ",
                        bad - weights.begin(), " is ", *bad, " (its signal level is ",
                        schedule_.base_gammas()[static_cast<size_t>(bad - weights.begin())], ")");
    }
  }
  weights_ = at::tensor(weights).to(device);
  for (size_t i = 0; i < levels; ++i) gammas_.push_back(at::tensor(schedule_.gammas(i)).to(device));
}

std::vector<int64_t> DiffusionLoss::rows(int64_t batch, const BatchSlice& slice) const {
  const int64_t total = slice.total == 0 ? batch : slice.total;
  if (slice.first < 0 || slice.first + batch > total) {
    fail("rows ", slice.first, " to ", slice.first + batch, " are no part of a batch of ", total);
  }
  std::vector<int64_t> out = level_rows(ratio_, schedule_.levels(), total);
  for (int64_t& rows : out) rows = std::clamp<int64_t>(rows - slice.first, 0, batch);
  return out;
}

TrainingInputs DiffusionLoss::prepare(const at::Tensor& images, const at::Tensor& times,
                                      const std::vector<at::Tensor>& noise, const BatchSlice& slice,
                                      const at::Tensor& sample_weights) const {
  const size_t levels = schedule_.levels();
  const int64_t batch = images.size(0);
  if (times.dim() != 1 || times.size(0) != batch) fail("there are ", times.numel(), " times for ", batch, " images");
  if (noise.size() != levels) fail("there is noise for ", noise.size(), " levels, but the model has ", levels);
  const std::vector<int64_t> rows = this->rows(batch, slice);
  const std::vector<at::Tensor> pictures = level_images(images, schedule_.scales(), frames_);

  TrainingInputs out;
  out.times = times;
  const at::Tensor steps = times + 1;
  out.weights = config_.use_vdm_loss_weights ? weights_.index_select(0, steps) : at::ones({batch}, weights_.options());
  if (sample_weights.defined()) out.weights = out.weights * sample_weights.to(out.weights.options());
  for (size_t i = 0; i < levels; ++i) {
    const at::Tensor picture = pictures[i].narrow(0, 0, rows[i]);
    const bool fits = noise[i].dim() == 4 && (noise[i].size(0) == batch || noise[i].size(0) == rows[i]) &&
                      noise[i].sizes().slice(1) == picture.sizes().slice(1);
    if (!fits) fail("the noise of level ", i, " is ", noise[i].sizes(), ", its images are ", picture.sizes());
    const at::Tensor eps = noise[i].narrow(0, 0, rows[i]);
    const at::Tensor gamma = gammas_[i].index_select(0, steps.narrow(0, 0, rows[i])).view({-1, 1, 1, 1});
    const double scale = schedule_.signal_scale(i);
    const at::Tensor x_0 = scale == 1 ? picture : picture / scale;
    out.x_t.push_back(add_noise(x_0, eps, gamma));
    const bool unscaled = compat_.unscaled_targets && levels == 1;
    out.targets.push_back(prediction_target(target_, unscaled ? picture : x_0, eps, gamma));
    out.gammas.push_back(gamma);
  }
  return out;
}

LossValue DiffusionLoss::operator()(const TrainingInputs& inputs, const std::vector<at::Tensor>& predictions) const {
  const size_t levels = schedule_.levels();
  if (predictions.size() != levels) fail("the model predicts ", predictions.size(), " levels instead of ", levels);
  const int64_t batch = inputs.times.size(0);
  LossValue out;
  at::Tensor total;  // (B)
  for (size_t i = 0; i < levels; ++i) {
    const at::Tensor& x_t = inputs.x_t[i];
    if (predictions[i].sizes() != x_t.sizes()) {
      fail("the model's prediction at level ", i, " is ", predictions[i].sizes(), ", its input ", x_t.sizes());
    }
    const bool counts = i == 0 || config_.use_double_loss;
    const at::AutoGradMode grad(counts && at::GradMode::is_enabled());  // other levels are for the log only
    at::Tensor prediction = predictions[i].to(at::kFloat);
    if (levels == 1) prediction = bound_prediction(prediction, config_.model_output_scale);
    prediction = convert_prediction(prediction, config_.sampler_config.prediction_type, target_, x_t, inputs.gammas[i]);
    const at::Tensor errors = (prediction - inputs.targets[i]).square().mean({1, 2, 3});  // (B_i)
    out.per_level.push_back(errors.detach());
    if (!counts) continue;
    // The mean over the batch stays that of a full batch: what fewer rows have counts more.
    const double weight = level_weights_[i] / (ratio_.empty() ? 1 : ratio_[i]);
    at::Tensor part = weight == 1 ? errors : errors * weight;
    if (part.size(0) < batch) part = at::constant_pad_nd(part, {0, batch - part.size(0)});
    total = total.defined() ? total + part : part;
  }
  out.per_example = total.detach();
  out.sum = (total * inputs.weights).sum();
  out.weight = inputs.weights.sum();
  return out;
}

}  // namespace mdm
