// Methods that need tens of steps where DDPM takes hundreds: solvers of the diffusion's differential equation
// that use more than one prediction of x_0 per step. They change the result, so none is a default.
//
// All work on the predicted x_0 after its threshold (so v, eps and x_0 models are alike), level by level, each
// with its own noise schedule. With alpha = sqrt(gamma), sigma = sqrt(1 - gamma) and lambda = log(alpha / sigma),
// a step goes from lambda to lambda + h. Steps to gamma = 1 (h infinite) and from gamma = 0 are of first order.
#pragma once

#include <cstdint>
#include <vector>

#include "mdm/diffusion/sampler.h"

namespace mdm {

/// What a multi-step method remembers of the step before: the predictions, and where they were made.
struct PredictionHistory {
  std::vector<at::Tensor> x_0;  ///< per level; empty before the first step
  int64_t t = 0;                ///< index of the gammas
};

/// DPM-Solver++(2M), arXiv 2211.01095, algorithm 2; or its stochastic form SDE-DPM-Solver++(2M), appendix D of the
/// same paper, which draws fresh noise in each step as DDPM does. One call of the model a step, second order.
class DpmSolverSampler : public Sampler {
 public:
  explicit DpmSolverSampler(bool stochastic) : stochastic_(stochastic) {}
  void begin() override { last_ = {}; }
  SampleState step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                   NoiseSource& noise) override;

 private:
  bool stochastic_;
  PredictionHistory last_;
};

/// UniPC of second order, arXiv 2302.04867, with B(h) = e^h - 1 (its "bh2") and predictions of x_0: a multi-step
/// predictor, and a corrector that uses the next step's prediction, so one call of the model a step.
class UniPcSampler : public Sampler {
 public:
  void begin() override;
  SampleState step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                   NoiseSource& noise) override;

 private:
  at::Tensor corrected(const Schedule& schedule, size_t level, int64_t t, const at::Tensor& x_t,
                       const at::Tensor& x_0) const;

  std::vector<at::Tensor> before_;  // the corrected state that the last step started from
  PredictionHistory last_, second_last_;
};

/// Heun's method on the probability-flow equation dx/d(sigma/alpha) of x/alpha (arXiv 2206.00364, algorithm 1,
/// without its added noise): two calls of the model a step, one in the last; second order.
class HeunSampler : public Sampler {
 public:
  SampleState step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                   NoiseSource& noise) override;
};

}  // namespace mdm
