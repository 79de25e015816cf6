// Noise schedules: the signal level gamma of each diffusion step at each level of the model, and which
// steps sampling visits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mdm/config/diffusion_config.h"
#include "mdm/config/sample_config.h"
#include "mdm/diffusion/compat.h"

namespace mdm {

/// The N + 1 signal levels of a schedule in float64, gamma_0 = 1, falling: x_n = sqrt(gamma_n) x_0 +
/// sqrt(1 - gamma_n) eps. Without rescale_schedule. Sources: see ScheduleType; the sigmoid is algorithm 1
/// of arXiv 2301.10972 at n / N (gamma_0 = 1, values below 1e-9 are raised to it).
/// ConfigError for settings that give no schedule (betas outside [0, 1), sigmoid_tau <= 0, ...).
std::vector<double> schedule_gammas(const SamplerConfig& config);

/// The signal-to-noise ratio gamma / (1 - gamma) divided by scale^power, in float32 as the reference does
/// it (ml_mdm/samplers.py: get_schedule_shifted). `scale` <= 1 changes nothing.
std::vector<float> shift_gammas(const std::vector<float>& gammas, double scale, double power);

/// Loss weights of Variational Diffusion Models (Kingma et al. 2021) for discrete steps:
/// w_n = snr_{n-1} / snr_n - 1 for n >= 2, w_0 = w_1 = w_2. Float32 in the reference's order of
/// operations; not finite where gammas are 0 or repeat. Needs at least 3 gammas.
std::vector<float> vdm_loss_weights(const std::vector<float>& gammas);

/// log(gamma / (1 - gamma)) in float32; infinite for gamma = 1.
std::vector<float> log_snr(const std::vector<float>& gammas);

/// The noise schedule of each level of a model.
class Schedule {
 public:
  /// `scales`: level_scales(), outermost first; {1} for a plain model.
  /// A nested model either shifts the schedule of a level by its scale (schedule_shifted), or divides its
  /// images by the scale; a plain one divides them by rescale_signal, which nested ones don't use.
  /// ConfigError for settings out of range.
  explicit Schedule(const SamplerConfig& config, std::vector<int64_t> scales = {1});

  const SamplerConfig& config() const { return config_; }
  /// N: models are trained for the times 0 .. N - 1; gamma_n belongs to time n - 1.
  int64_t steps() const { return config_.num_diffusion_steps; }
  size_t levels() const { return scales_.size(); }
  const std::vector<int64_t>& scales() const { return scales_; }
  /// N + 1 float32 signal levels of a level, after rescale_schedule and the level's shift.
  const std::vector<float>& gammas(size_t level = 0) const { return gammas_.at(level); }
  /// Before the shift of levels: what the weights of the loss are made from.
  const std::vector<float>& base_gammas() const { return base_gammas_; }
  const std::vector<float>& loss_weights() const { return loss_weights_; }
  /// Images of this level are divided by this before noise is added, and multiplied at the end.
  double signal_scale(size_t level = 0) const { return signal_scales_.at(level); }

 private:
  SamplerConfig config_;
  std::vector<int64_t> scales_;
  std::vector<float> base_gammas_, loss_weights_;
  std::vector<std::vector<float>> gammas_;
  std::vector<double> signal_scales_;
};

/// The steps to visit: K + 1 indices n of gammas, falling, the last is 0; the model gets the time n - 1.
/// `steps` is N, `inference_steps` K >= 1 (ConfigError); K > N is clamped to N with a warning.
/// kReference: round(k (N + 1) / (K + 1)), half to even, which does not start at N unless K = N.
/// kLeading, kTrailing, kLinspace: arXiv 2305.08891, table 2 (kLinspace with K = 1: N).
std::vector<int64_t> make_timesteps(int64_t steps, int64_t inference_steps, TimestepSpacing spacing,
                                    const Compat& compat = {});

/// Index in `timesteps` of the first one that is at most `t` (the reference's argument t).
/// ConfigError when only the final 0 is.
int64_t first_step_from(const std::vector<int64_t>& timesteps, int64_t t);

/// Index of the first step to run when starting from a picture: the last round(strength K) steps are run,
/// at least one unless strength is 0. ConfigError outside [0, 1].
int64_t first_step_for_strength(const std::vector<int64_t>& timesteps, double strength);

}  // namespace mdm
