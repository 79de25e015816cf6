// Sampling: from noise (or a noisy picture) to pictures, step by step. A method is a Sampler, the loop
// around it is run_sampler().
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "mdm/config/sample_config.h"
#include "mdm/diffusion/compat.h"
#include "mdm/diffusion/noise.h"
#include "mdm/diffusion/schedule.h"
#include "mdm/ops/sampler_step.h"

namespace mdm {

/// What a model says of x_t: predictions of its shapes, or pairs of them that are still to be joined by guidance.
struct ModelOutput {
  std::vector<at::Tensor> levels;  ///< (B, C, H_i, W_i); with guidance (2 B, ...): unconditional rows, then conditional
  double guidance = 1;             ///< not 1: unconditional + guidance (conditional - unconditional)

  ModelOutput(std::vector<at::Tensor> predictions, double scale = 1)  // NOLINT: predictions are an output
      : levels(std::move(predictions)), guidance(scale) {}
};

/// The model as a sampler sees it: x_t per level (B, C, H_i, W_i), outermost first, and times (B) int64.
using ModelCallback = std::function<ModelOutput(const std::vector<at::Tensor>& x_t, const at::Tensor& times)>;

/// One step of a run, from gamma index `t` to `next`.
struct SamplingStep {
  int64_t index = 0;  ///< in the full list of steps, also when a run starts later in it
  int64_t count = 0;  ///< length of that list
  int64_t t = 0;      ///< the model gets the time t - 1
  int64_t next = 0;
};

/// All levels at some point of a run, on the scale of the diffusion process.
struct SampleState {
  std::vector<at::Tensor> x_t;
  std::vector<at::Tensor> x_0;  ///< predicted, after the threshold; empty before the first step
};

/// x_next = x_0 * this.x_0 + x_t * this.x_t + noise * this.noise
struct StepCoefficients {
  double x_0 = 0, x_t = 0, noise = 0;
};

/// Predicts x_0 with the model: its output as x_0, brought back to the range of images.
class Denoiser {
 public:
  /// `threshold` unset: the config's threshold_function. The schedule must outlive the denoiser.
  Denoiser(const Schedule& schedule, ModelCallback model, std::optional<ThresholdType> threshold = std::nullopt);

  /// x_0 per level for x_t at gamma index t >= 1: one call of the model. Error when the model's output has
  /// other shapes.
  std::vector<at::Tensor> predict(const std::vector<at::Tensor>& x_t, int64_t t) const;

  /// The same for an output that the model has given already.
  std::vector<at::Tensor> pictures_of(const ModelOutput& output, const std::vector<at::Tensor>& x_t, int64_t t) const;

  /// The same, and in the same pass the next state, by a level's coefficients. Noise is taken from `noise` where a
  /// level's coefficient of it is not 0, or `draws_always`.
  SampleState advance(const SamplingStep& step, const std::vector<at::Tensor>& x_t,
                      const std::vector<StepCoefficients>& coefficients, NoiseSource& noise,
                      bool draws_always = false) const;

  const Schedule& schedule() const { return *schedule_; }

 private:
  ModelOutput ask(const std::vector<at::Tensor>& x_t, int64_t t) const;
  std::vector<ops::SamplerLevel> levels_of(const ModelOutput& output, const std::vector<at::Tensor>& x_t, int64_t t,
                                           ops::SamplerRule& rule) const;

  const Schedule* schedule_;
  ModelCallback model_;
  ThresholdType threshold_;
};

/// A sampling method. It may keep state between the steps of a run (history of predictions) and ask the
/// denoiser as often as it needs.
class Sampler {
 public:
  virtual ~Sampler() = default;
  /// Forgets the last run.
  virtual void begin() {}
  /// The state at step.next, with the x_0 that it was made from. `x_t` is at step.t.
  virtual SampleState step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                           NoiseSource& noise) = 0;
};

/// One step of DDPM (eta unset; arXiv 2006.11239) or DDIM (arXiv 2010.02502) between two signal levels,
/// 0 <= gamma < 1, gamma <= gamma_next <= 1. DDIM with eta = 1 is DDPM; an eta so large that the noise of
/// the step would exceed all noise at gamma_next is held there.
StepCoefficients step_coefficients(double gamma, double gamma_next, std::optional<double> eta);

/// DDPM and DDIM.
class DdimSampler : public Sampler {
 public:
  /// eta >= 0 (ConfigError); unset: DDPM.
  explicit DdimSampler(std::optional<double> eta, const Compat& compat = {});
  SampleState step(const SamplingStep& step, const std::vector<at::Tensor>& x_t, const Denoiser& denoiser,
                   NoiseSource& noise) override;

 private:
  std::optional<double> eta_;
  Compat compat_;
};

/// The method that `sampler` and `ddim_eta` name.
std::unique_ptr<Sampler> make_sampler(const SampleConfig& config, const Compat& compat = {});

/// What a run starts from and who looks on.
struct SamplingRun {
  int64_t batch = 1;
  int64_t channels = 3;
  int64_t height = 0, width = 0;   ///< of the highest level; must divide by its scale
  std::vector<int64_t> timesteps;  ///< see make_timesteps
  int64_t first_step = 0;          ///< index in `timesteps`: the run starts at timesteps[first_step]
  /// Pictures to start from, (B, C, H, W) in [-1, 1]: lower levels are made by average pooling, and noise
  /// is added up to the first step's level. Undefined: start from noise alone.
  at::Tensor start_images;
  std::function<void(const SamplingStep&)> before_step;
  /// After each step; states may be kept, nothing writes to them later.
  std::function<void(const SamplingStep&, const SampleState&)> after_step;
  const std::atomic<bool>* cancel = nullptr;  ///< looked at before each step
};

/// Pictures per level, outermost first, on the scale of images.
struct SamplingResult {
  std::vector<at::Tensor> x_t;  ///< (B, C, H_i, W_i), the final state, clipped to [-1, 1]
  std::vector<at::Tensor> x_0;  ///< the last predicted x_0, not clipped further; empty when no step was run
  int64_t steps_done = 0;
  bool cancelled = false;
};

/// Runs all steps, without recording gradients. ConfigError for sizes, lists and schedules that can't work
/// (see the fields); Error when the model's output or the noise has wrong shapes.
SamplingResult run_sampler(Sampler& sampler, const Denoiser& denoiser, NoiseSource& noise, const SamplingRun& run);

}  // namespace mdm
