// Noise schedules. The order of floating point operations is part of the result here: float64 as NumPy
// would do it for the schedules, float32 as torch would for shifts and weights.
#include "mdm/diffusion/schedule.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mdm/core/error.h"

namespace mdm {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// `count` >= 2 numbers from `first` to `last`, both included.
std::vector<double> evenly_spaced(double first, double last, int64_t count) {
  const double step = (last - first) / static_cast<double>(count - 1);
  std::vector<double> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out[static_cast<size_t>(i)] = static_cast<double>(i) * step + first;
  out.back() = last;
  return out;
}

/// Gammas from betas (the noise that each step adds): products, summed as logarithms.
std::vector<double> gammas_of_betas(const std::vector<double>& betas) {
  std::vector<double> gammas = {1.0};
  double log_gamma = 0;
  for (double beta : betas) {
    log_gamma += std::log(1.0 - beta);
    gammas.push_back(std::exp(log_gamma));
  }
  return gammas;
}

std::vector<double> cosine_gammas(int64_t steps) {
  constexpr double kLogSnr = 5;  // from +5 to -5
  const double first = std::atan(std::exp(-0.5 * kLogSnr));
  const double range = std::atan(std::exp(0.5 * kLogSnr)) - first;
  std::vector<double> gammas = {1.0};
  for (double t : evenly_spaced(0, 1, steps)) {
    const double log_snr = -2.0 * std::log(std::tan(range * t + first));
    gammas.push_back(1 / (1 + std::exp(-log_snr)));
  }
  return gammas;
}

std::vector<double> deepfloyd_gammas(int64_t steps) {
  const auto squared_cosine = [](double t) {
    const double c = std::cos((t + 0.008) / 1.008 * kPi / 2);
    return c * c;
  };
  std::vector<double> betas;
  const auto n = static_cast<double>(steps);
  for (int64_t i = 0; i < steps; ++i) {
    const double now = squared_cosine(static_cast<double>(i) / n);
    const double next = squared_cosine(static_cast<double>(i + 1) / n);
    betas.push_back(std::min(1 - next / now, 0.999));
  }
  return gammas_of_betas(betas);
}

std::vector<double> sigmoid_gammas(int64_t steps, double start, double end, double tau) {
  constexpr double kSmallest = 1e-9;
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const double at_start = sigmoid(start / tau), at_end = sigmoid(end / tau);
  std::vector<double> gammas = {1.0};
  for (int64_t i = 1; i <= steps; ++i) {
    const double t = static_cast<double>(i) / static_cast<double>(steps);
    const double value = sigmoid((t * (end - start) + start) / tau);
    gammas.push_back(std::clamp((at_end - value) / (at_end - at_start), kSmallest, 1.0));
  }
  return gammas;
}

void check_settings(const SamplerConfig& config) {
  if (config.num_diffusion_steps < 2) {
    fail<ConfigError>("num_diffusion_steps is ", config.num_diffusion_steps, ", allowed are numbers from 2 on");
  }
  if (config.schedule_type == ScheduleType::kDdpm) {
    for (const auto& [name, beta] : {std::pair("beta_start", config.beta_start), {"beta_end", config.beta_end}}) {
      if (!(beta >= 0 && beta < 1)) fail<ConfigError>(name, " is ", beta, ", allowed are numbers in [0, 1)");
    }
  }
  if (config.schedule_type == ScheduleType::kSigmoid) {
    if (!(config.sigmoid_tau > 0)) fail<ConfigError>("sigmoid_tau is ", config.sigmoid_tau, ", it must be above 0");
    if (!(config.sigmoid_start < config.sigmoid_end)) {
      fail<ConfigError>("sigmoid_start is ", config.sigmoid_start, ", it must be below sigmoid_end, which is ",
                        config.sigmoid_end);
    }
  }
}

}  // namespace

std::vector<double> schedule_gammas(const SamplerConfig& config) {
  check_settings(config);
  const int64_t steps = config.num_diffusion_steps;
  switch (config.schedule_type) {
    case ScheduleType::kCosine: return cosine_gammas(steps);
    case ScheduleType::kDdpm: return gammas_of_betas(evenly_spaced(config.beta_start, config.beta_end, steps));
    case ScheduleType::kDeepFloyd: return deepfloyd_gammas(steps);
    case ScheduleType::kSigmoid:
      return sigmoid_gammas(steps, config.sigmoid_start, config.sigmoid_end, config.sigmoid_tau);
  }
  fail<ConfigError>("schedule_type has the unknown value ", static_cast<int>(config.schedule_type));
}

std::vector<float> shift_gammas(const std::vector<float>& gammas, double scale, double power) {
  std::vector<float> out = gammas;
  if (!(scale > 1)) return out;
  const auto divisor = static_cast<float>(std::pow(scale, power));
  for (float& gamma : out) {
    const float snr = gamma / (1 - gamma) / divisor;  // infinite for gamma 1, which then stays 1
    gamma = 1 / (1 + 1 / snr);
  }
  return out;
}

std::vector<float> vdm_loss_weights(const std::vector<float>& gammas) {
  if (gammas.size() < 3) fail("loss weights need at least 3 signal levels, but there are ", gammas.size());
  std::vector<float> weights(gammas.size());
  for (size_t n = 2; n < gammas.size(); ++n) {
    const float gamma = gammas[n], last = gammas[n - 1];
    weights[n] = last * (1 - gamma) / (1 - last) / gamma - 1;
  }
  weights[0] = weights[1] = weights[2];
  return weights;
}

std::vector<float> log_snr(const std::vector<float>& gammas) {
  std::vector<float> out;
  out.reserve(gammas.size());
  for (float gamma : gammas) out.push_back(std::log(gamma / (1 - gamma)));
  return out;
}

Schedule::Schedule(const SamplerConfig& config, std::vector<int64_t> scales)
    : config_(config), scales_(std::move(scales)) {
  if (scales_.empty() || scales_.back() != 1) fail("the scales of a model's levels must end with 1");
  if (config_.rescale_signal && !(*config_.rescale_signal > 0)) {
    fail<ConfigError>("rescale_signal is ", *config_.rescale_signal, ", it must be above 0");
  }
  if (!std::isfinite(config_.rescale_schedule) || !std::isfinite(config_.schedule_shifted_power)) {
    fail<ConfigError>("rescale_schedule and schedule_shifted_power must be finite, but are ", config_.rescale_schedule,
                      " and ", config_.schedule_shifted_power);
  }
  const std::vector<double> exact = schedule_gammas(config_);
  base_gammas_ = shift_gammas({exact.begin(), exact.end()}, config_.rescale_schedule, config_.schedule_shifted_power);
  loss_weights_ = vdm_loss_weights(base_gammas_);
  const bool nested = scales_.size() > 1;
  for (int64_t scale : scales_) {
    const auto factor = static_cast<double>(scale);
    const bool shifted = nested && config_.schedule_shifted;
    gammas_.push_back(shifted ? shift_gammas(base_gammas_, factor, config_.schedule_shifted_power) : base_gammas_);
    signal_scales_.push_back(!nested ? config_.rescale_signal.value_or(1) : shifted ? 1 : factor);
  }
}

}  // namespace mdm
