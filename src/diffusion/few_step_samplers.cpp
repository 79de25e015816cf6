// Multi-step and two-evaluation solvers. Coefficients are computed in float64, tensors stay in float32.
#include "mdm/diffusion/few_step_samplers.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace mdm {
namespace {

// A level's signal and noise at one gamma index.
struct Point {
  double alpha, sigma, lambda;

  Point(const Schedule& schedule, size_t level, int64_t t) {
    const double gamma = schedule.gammas(level)[static_cast<size_t>(t)];
    alpha = std::sqrt(gamma);
    sigma = std::sqrt(1 - gamma);
    lambda = sigma == 0 ? std::numeric_limits<double>::infinity() : std::log(alpha / sigma);
  }
};

// The exact step between two points for a constant x_0 (DDIM): x * x_t + x_0 * x_0's factor.
struct FirstOrder {
  double x_t, x_0;

  FirstOrder(const Point& from, const Point& to) : x_t(to.sigma / from.sigma), x_0(to.alpha - from.alpha * x_t) {}
};

at::Tensor combined(const at::Tensor& a, double factor_a, const at::Tensor& b, double factor_b) {
  return (a * factor_a).add_(b, factor_b);
}

// Widths of the last step in units of this one, h_last / h; 0 where there is no second order to be had.
double ratio_of_steps(const std::optional<Point>& last, const Point& from, const Point& to) {
  if (!last) return 0;
  const double ratio = (from.lambda - last->lambda) / (to.lambda - from.lambda);
  return std::isfinite(ratio) ? ratio : 0;
}

// x_0 at half of this step (times two, in effect), continued in a straight line from the last two predictions.
at::Tensor extrapolated(const at::Tensor& now, const at::Tensor& last, double ratio) {
  const double share = 0.5 / ratio;
  return combined(now, 1 + share, last, -share);
}

std::optional<Point> point_of(const PredictionHistory& history, const Schedule& schedule, size_t level) {
  if (history.x_0.empty()) return std::nullopt;
  return Point(schedule, level, history.t);
}

}  // namespace

SampleState DpmSolverSampler::step(const SamplingStep& step, const std::vector<at::Tensor>& x_t,
                                   const Denoiser& denoiser, NoiseSource& noise) {
  SampleState out;
  out.x_0 = denoiser.predict(x_t, step.t);
  for (size_t i = 0; i < x_t.size(); ++i) {
    const Point from(denoiser.schedule(), i, step.t), to(denoiser.schedule(), i, step.next);
    const double ratio = ratio_of_steps(point_of(last_, denoiser.schedule(), i), from, to);
    const at::Tensor x_0 = ratio > 0 ? extrapolated(out.x_0[i], last_.x_0[i], ratio) : out.x_0[i];
    if (stochastic_) {
      // e^-2h, the share of the old noise that stays, makes this DDPM's posterior for a constant x_0.
      const StepCoefficients c = step_coefficients(from.alpha * from.alpha, to.alpha * to.alpha, std::nullopt);
      at::Tensor x = combined(x_0, c.x_0, x_t[i], c.x_t);
      if (c.noise > 0) x.add_(noise.step(step.index, i, x.sizes()), c.noise);
      out.x_t.push_back(std::move(x));
    } else {
      const FirstOrder first(from, to);
      out.x_t.push_back(combined(x_0, first.x_0, x_t[i], first.x_t));
    }
  }
  last_ = {out.x_0, step.t};
  return out;
}

namespace {

// The corrector's weights of the two differences of predictions: rho_1 + rho_2 = b_1, r rho_1 + rho_2 = b_2,
// with r = (lambda_last - lambda) / h < 0 (arXiv 2302.04867, equation 9, for data predictions h -> -h).
struct CorrectorWeights {
  double last = 0, next = 0.5;

  CorrectorWeights(double h, double ratio) {
    if (ratio <= 0) return;
    const double scale = std::expm1(-h);
    const double second = scale / -h - 1;    // h phi_2(-h)
    const double third = second / -h - 0.5;  // h phi_3(-h)
    const double b_1 = second / scale, b_2 = 2 * third / scale;
    last = (b_2 - b_1) / (-ratio - 1);
    next = b_1 - last;
  }
};

}  // namespace

void UniPcSampler::begin() {
  before_.clear();
  last_ = second_last_ = {};
}

// The state at t, where x_0 was predicted meanwhile, reached again from the one before.
at::Tensor UniPcSampler::corrected(const Schedule& schedule, size_t level, int64_t t, const at::Tensor& x_t,
                                   const at::Tensor& x_0) const {
  const Point now(schedule, level, t);
  const std::optional<Point> last = point_of(last_, schedule, level);
  if (!last || !std::isfinite(last->lambda) || now.lambda <= last->lambda) return x_t;
  const double h = now.lambda - last->lambda;
  const std::optional<Point> second_last = point_of(second_last_, schedule, level);
  const double ratio = second_last ? (last->lambda - second_last->lambda) / h : 0;
  const CorrectorWeights rho(h, std::isfinite(ratio) ? ratio : 0);
  const FirstOrder first(*last, now);
  const double scale = -now.alpha * std::expm1(-h);
  at::Tensor x = combined(last_.x_0[level], first.x_0, before_[level], first.x_t);
  x.add_(x_0 - last_.x_0[level], scale * rho.next);
  if (rho.last != 0) x.add_(second_last_.x_0[level] - last_.x_0[level], scale * rho.last / -ratio);
  return x;
}

SampleState UniPcSampler::step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                               NoiseSource& /*noise*/) {
  SampleState out;
  out.x_0 = denoiser.predict(x_t, step.t);
  std::vector<at::Tensor> starts;
  for (size_t i = 0; i < x_t.size(); ++i) {
    const Point from(denoiser.schedule(), i, step.t), to(denoiser.schedule(), i, step.next);
    starts.push_back(corrected(denoiser.schedule(), i, step.t, x_t[i], out.x_0[i]));
    const double ratio = ratio_of_steps(point_of(last_, denoiser.schedule(), i), from, to);
    const at::Tensor x_0 = ratio > 0 ? extrapolated(out.x_0[i], last_.x_0[i], ratio) : out.x_0[i];
    const FirstOrder first(from, to);
    out.x_t.push_back(combined(x_0, first.x_0, starts.back(), first.x_t));
  }
  second_last_ = std::move(last_);
  last_ = {out.x_0, step.t};
  before_ = std::move(starts);
  return out;
}

SampleState HeunSampler::step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                              NoiseSource& /*noise*/) {
  SampleState out;
  out.x_0 = denoiser.predict(x_t, step.t);
  std::vector<Point> from, to;
  for (size_t i = 0; i < x_t.size(); ++i) {
    from.emplace_back(denoiser.schedule(), i, step.t);
    to.emplace_back(denoiser.schedule(), i, step.next);
    const FirstOrder first(from[i], to[i]);
    out.x_t.push_back(combined(out.x_0[i], first.x_0, x_t[i], first.x_t));
  }
  if (step.next == 0) return out;
  const std::vector<at::Tensor> x_0_next = denoiser.predict(out.x_t, step.next);
  for (size_t i = 0; i < x_t.size(); ++i) {
    if (from[i].alpha == 0 || to[i].sigma == 0) continue;  // sigma / alpha is infinite, or its slope
    // The slope of x / alpha over sigma / alpha is eps; the step takes the mean of both ends' instead of the first.
    const at::Tensor eps = combined(x_t[i], 1 / from[i].sigma, out.x_0[i], -from[i].alpha / from[i].sigma);
    const at::Tensor eps_next = combined(out.x_t[i], 1 / to[i].sigma, x_0_next[i], -to[i].alpha / to[i].sigma);
    const double width = to[i].sigma - to[i].alpha * from[i].sigma / from[i].alpha;
    out.x_t[i].add_(eps_next - eps, width / 2);
  }
  return out;
}

}  // namespace mdm
