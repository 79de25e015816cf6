// DDPM and DDIM, and the loop that runs a sampler.
#include "mdm/diffusion/sampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/diffusion/few_step_samplers.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/prediction.h"

namespace mdm {

Denoiser::Denoiser(const Schedule& schedule, ModelCallback model, std::optional<ThresholdType> threshold)
    : schedule_(&schedule),
      model_(std::move(model)),
      threshold_(threshold.value_or(schedule.config().threshold_function)) {}

ModelOutput Denoiser::ask(const std::vector<at::Tensor>& x_t, int64_t t) const {
  return model_(x_t, at::full({x_t.front().size(0)}, t - 1, x_t.front().options().dtype(at::kLong)));
}

// What the model's output means at t.
std::vector<ops::SamplerLevel> Denoiser::levels_of(const ModelOutput& output, const std::vector<at::Tensor>& x_t,
                                                   int64_t t, ops::SamplerRule& rule) const {
  if (output.levels.size() != x_t.size()) {
    fail("the model predicts ", output.levels.size(), " levels, but the sampler has ", x_t.size());
  }
  rule.predicts = predicts(schedule_->config().prediction_type);
  rule.threshold = threshold_rule(threshold_);
  rule.guidance = output.guidance;
  std::vector<ops::SamplerLevel> levels(x_t.size());
  for (size_t i = 0; i < x_t.size(); ++i) {
    std::vector<int64_t> wanted = x_t[i].sizes().vec();
    if (output.guidance != 1) wanted[0] *= 2;
    if (output.levels[i].sizes() != at::IntArrayRef(wanted)) {
      fail("the model's prediction at level ", i, " is ", output.levels[i].sizes(), ", its input ", x_t[i].sizes());
    }
    levels[i].x_t = x_t[i];
    levels[i].prediction = output.levels[i];
    levels[i].gamma = schedule_->gammas(i)[static_cast<size_t>(t)];
    levels[i].image_scale = schedule_->signal_scale(i);
  }
  return levels;
}

std::vector<at::Tensor> Denoiser::predict(const std::vector<at::Tensor>& x_t, int64_t t) const {
  return pictures_of(ask(x_t, t), x_t, t);
}

std::vector<at::Tensor> Denoiser::pictures_of(const ModelOutput& output, const std::vector<at::Tensor>& x_t,
                                              int64_t t) const {
  ops::SamplerRule rule;
  rule.advances = false;
  const std::vector<ops::SamplerLevel> levels = levels_of(output, x_t, t, rule);
  std::vector<at::Tensor> out;
  for (ops::SteppedLevel& level : ops::sampler_step(levels, rule)) out.push_back(std::move(level.x_0));
  return out;
}

SampleState Denoiser::advance(const SamplingStep& step, const std::vector<at::Tensor>& x_t,
                              const std::vector<StepCoefficients>& coefficients, NoiseSource& noise,
                              bool draws_always) const {
  ops::SamplerRule rule;
  std::vector<ops::SamplerLevel> levels = levels_of(ask(x_t, step.t), x_t, step.t, rule);
  const auto is_noisy = [](const StepCoefficients& c) { return c.noise > 0; };
  ops::StepNoise addressed;
  addressed.step = static_cast<uint64_t>(step.index);
  if (std::any_of(coefficients.begin(), coefficients.end(), is_noisy)) addressed.seeds = noise.step_seeds();
  for (size_t i = 0; i < levels.size(); ++i) {
    levels[i].next_x_0 = coefficients[i].x_0;
    levels[i].next_x_t = coefficients[i].x_t;
    levels[i].next_noise = coefficients[i].noise;
    if (addressed.seeds.defined() || !(draws_always || coefficients[i].noise > 0)) continue;
    levels[i].noise = noise.step(step.index, i, x_t[i].sizes());
  }
  SampleState out;
  for (ops::SteppedLevel& level : ops::sampler_step(levels, rule, addressed)) {
    out.x_0.push_back(std::move(level.x_0));
    out.x_t.push_back(std::move(level.x_next));
  }
  return out;
}

StepCoefficients step_coefficients(double gamma, double gamma_next, std::optional<double> eta) {
  const double noise_next = 1 - gamma_next;  // variance of the noise in x_next
  const double alpha = gamma_next > 0 ? gamma / gamma_next : 1;
  const double posterior = (1 - alpha) * noise_next / (1 - gamma);  // variance of x_next given x_t and x_0
  const double strength = eta.value_or(1);
  const double fresh = std::clamp(strength * strength * posterior, 0.0, noise_next);
  // x_next = sqrt(gamma_next) x_0 + kept * eps + sqrt(fresh) * noise, with eps = (x_t - sqrt(gamma) x_0) / sqrt(1 -
  // gamma)
  const double kept = std::sqrt((noise_next - fresh) / (1 - gamma));
  return {std::sqrt(gamma_next) - kept * std::sqrt(gamma), kept, std::sqrt(fresh)};
}

DdimSampler::DdimSampler(std::optional<double> eta, const Compat& compat) : eta_(eta), compat_(compat) {
  if (eta_ && !(*eta_ >= 0 && std::isfinite(*eta_))) {
    fail<ConfigError>("ddim_eta is ", *eta_, ", allowed are numbers from 0 on");
  }
}

SampleState DdimSampler::step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                              NoiseSource& noise) {
  const bool last = x_t.size() > 1 ? step.t == 1 : step.next == 0;  // the reference's two ways to see it
  std::vector<StepCoefficients> coefficients;
  for (size_t i = 0; i < x_t.size(); ++i) {
    const std::vector<float>& gammas = denoiser.schedule().gammas(i);
    coefficients.push_back(
        step_coefficients(gammas[static_cast<size_t>(step.t)], gammas[static_cast<size_t>(step.next)], eta_));
    if (compat_.reference_draws && (last || eta_ == 0.0)) coefficients.back().noise = 0;
  }
  return denoiser.advance(step, x_t, coefficients, noise, compat_.reference_draws && !last && eta_ != 0.0);
}

std::unique_ptr<Sampler> make_sampler(const SampleConfig& config, const Compat& compat) {
  switch (config.sampler) {
    case SamplerKind::kDdpm: return std::make_unique<DdimSampler>(std::nullopt, compat);
    case SamplerKind::kDdim: return std::make_unique<DdimSampler>(config.ddim_eta.value_or(0), compat);
    case SamplerKind::kEuler: return std::make_unique<DdimSampler>(0, compat);
    case SamplerKind::kHeun: return std::make_unique<HeunSampler>();
    case SamplerKind::kDpmSolver2M: return std::make_unique<DpmSolverSampler>(/*stochastic=*/false);
    case SamplerKind::kDpmSolver2MSde: return std::make_unique<DpmSolverSampler>(/*stochastic=*/true);
    case SamplerKind::kUniPc: return std::make_unique<UniPcSampler>();
  }
  fail<ConfigError>("sampler has the unknown value ", static_cast<int>(config.sampler));
}

namespace {

void check_run(const SamplingRun& run, const Schedule& schedule) {
  const int64_t scale = schedule.scales().front();
  if (run.batch < 1 || run.channels < 1) {
    fail<ConfigError>("a batch of ", run.batch, " images with ", run.channels, " channels can't be sampled");
  }
  if (run.height < 1 || run.width < 1 || run.height % scale != 0 || run.width % scale != 0) {
    fail<ConfigError>("pictures of ", run.height, " x ", run.width, " can't be sampled: both must be multiples of ",
                      scale);
  }
  const auto& steps = run.timesteps;
  const auto count = static_cast<int64_t>(steps.size()) - 1;
  if (count < 1 || steps.back() != 0 || steps.front() > schedule.steps() ||
      !std::is_sorted(steps.rbegin(), steps.rend())) {
    fail<ConfigError>("the list of timesteps must fall from at most ", schedule.steps(), " to 0");
  }
  const int64_t most = run.start_images.defined() ? count : count - 1;
  if (run.first_step < 0 || run.first_step > most) {
    fail<ConfigError>("the first step is ", run.first_step, ", allowed are numbers from 0 to ", most);
  }
  const bool needs_signal = same_prediction(schedule.config().prediction_type, PredictionType::kDdpm);
  for (size_t level = 0; level < schedule.levels(); ++level) {
    for (int64_t t : steps) {
      const float gamma = schedule.gammas(level)[static_cast<size_t>(t)];
      if (t == 0 || (gamma < 1 && (gamma > 0 || (gamma == 0 && !needs_signal)))) continue;
      fail<ConfigError>("the noise schedule can't be sampled from: its signal level at step ", t, " of level ", level,
                        " is ", gamma);
    }
  }
}

std::vector<at::Tensor> start_state(const SamplingRun& run, const Schedule& schedule, NoiseSource& noise) {
  std::vector<at::Tensor> images;
  if (run.start_images.defined()) {
    const std::vector<int64_t> wanted = {run.batch, run.channels, run.height, run.width};
    if (run.start_images.sizes() != at::IntArrayRef(wanted)) {
      fail("the pictures to start from are ", run.start_images.sizes(), ", but ", at::IntArrayRef(wanted),
           " are needed");
    }
    images = level_images(run.start_images, schedule.scales());
  }
  const auto t = static_cast<size_t>(run.timesteps[static_cast<size_t>(run.first_step)]);
  std::vector<at::Tensor> x_t;
  for (size_t i = 0; i < schedule.levels(); ++i) {
    const int64_t divisor = schedule.scales().front() / schedule.scales()[i];
    const std::vector<int64_t> shape = {run.batch, run.channels, run.height / divisor, run.width / divisor};
    const at::Tensor start = noise.start(i, shape);
    if (start.sizes() != at::IntArrayRef(shape)) {
      fail("the noise of level ", i, " is ", start.sizes(), ", but ", at::IntArrayRef(shape), " is needed");
    }
    x_t.push_back(images.empty() ? start
                                 : add_noise(images[i].to(start.options()) / schedule.signal_scale(i), start,
                                             schedule.gammas(i)[t]));
  }
  return x_t;
}

}  // namespace

SamplingResult run_sampler(Sampler& sampler, const Denoiser& denoiser, NoiseSource& noise, const SamplingRun& run) {
  const at::NoGradGuard no_grad;
  const Schedule& schedule = denoiser.schedule();
  check_run(run, schedule);
  SampleState state;
  state.x_t = start_state(run, schedule, noise);
  sampler.begin();

  SamplingResult result;
  SamplingStep step;
  step.count = static_cast<int64_t>(run.timesteps.size()) - 1;
  for (step.index = run.first_step; step.index < step.count; ++step.index) {
    step.t = run.timesteps[static_cast<size_t>(step.index)];
    step.next = run.timesteps[static_cast<size_t>(step.index) + 1];
    if (step.t == 0) break;  // repeated zeros of an unclamped list
    if (run.cancel != nullptr && run.cancel->load(std::memory_order_relaxed)) {
      result.cancelled = true;
      break;
    }
    if (run.before_step) run.before_step(step);
    state = sampler.step(step, state.x_t, denoiser, noise);
    ++result.steps_done;
    if (run.after_step) run.after_step(step, state);
  }
  result.x_t = to_images(state.x_t, schedule, /*clip=*/true);
  result.x_0 = to_images(state.x_0, schedule, /*clip=*/false);
  return result;
}

}  // namespace mdm
