// What a user can set about the diffusion process: noise schedule, prediction, loss.
// Field names and defaults are those of the reference (ml_mdm/samplers.py: SamplerConfig;
// ml_mdm/diffusion.py: DiffusionConfig, NestedDiffusionConfig).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mdm {

/// Noise schedules: how the signal level gamma falls from 1 to near 0 over the diffusion steps.
enum class ScheduleType {
  kCosine,     ///< logSNR of a cosine between -5 and 5 (arXiv 2202.00512)
  kDdpm,       ///< linear betas (arXiv 2006.11239)
  kDeepFloyd,  ///< squared cosine with betas capped at 0.999 (arXiv 2102.09672)
  kSigmoid,    ///< sigmoid (arXiv 2301.10972, algorithm 1)
};

/// What the network's output stands for. The reference's DDPM and DDIM both mean eps.
enum class PredictionType { kDdpm, kDdim, kVPrediction, kX0 };

/// What is done to a predicted x_0 whose values leave [-1, 1].
enum class ThresholdType {
  kNone,
  kClip,
  kDynamic,    ///< arXiv 2205.11487: quantile 0.995, at most 100
  kDynamicIf,  ///< DeepFloyd: quantile 0.95, at most 1.5
};
/// The name in files and flags, e.g. "DYNAMIC_IF".
std::string choice_name(ThresholdType type);

struct SamplerConfig {
  int64_t num_diffusion_steps = 32;  ///< N of the schedule, >= 2
  bool reproject_signal = false;     ///< read and kept; the reference never uses it
  ScheduleType schedule_type = ScheduleType::kDdpm;
  PredictionType prediction_type = PredictionType::kDdpm;
  std::optional<PredictionType> loss_target_type;  ///< unset: the prediction type
  double beta_start = 1e-4;                        ///< ddpm schedule
  double beta_end = 0.02;                          ///< ddpm schedule
  double sigmoid_start = -3;                       ///< sigmoid schedule
  double sigmoid_end = 3;                          ///< sigmoid schedule
  double sigmoid_tau = 1.0;                        ///< sigmoid schedule
  ThresholdType threshold_function = ThresholdType::kClip;
  double rescale_schedule = 1.0;         ///< > 1: the whole schedule is shifted to more noise
  std::optional<double> rescale_signal;  ///< images are divided by this before noise is added (arXiv 2301.10972)
  bool schedule_shifted = false;         ///< each nested level's schedule is shifted by its resolution ratio
  double schedule_shifted_power = 1;     ///< the shift is ratio^power
};

/// Also holds what counts in nested models only.
struct DiffusionConfig {
  SamplerConfig sampler_config;
  double model_output_scale = 0;  ///< s != 0: the output becomes s tanh(out / s); plain models only
  bool use_vdm_loss_weights = true;
  bool use_double_loss = false;           ///< nested: the loss of all levels counts, not only the highest
  std::vector<double> multi_res_weights;  ///< nested: a:b:c, outermost first; needs use_double_loss
  bool no_use_residual = true;            ///< false is broken in the reference and refused
  bool use_random_interp = false;         ///< read and kept; the reference never uses it
  std::vector<double> mixed_ratio;        ///< nested: a:b, share of the batch that reaches each level, outermost first
  bool random_downsample = false;         ///< read and kept
  bool average_downsample = false;        ///< read and kept
  bool mid_downsample = false;            ///< read and kept
};

}  // namespace mdm
