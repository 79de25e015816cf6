// The training loss of plain and nested models.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mdm/config/diffusion_config.h"
#include "mdm/config/model_config.h"
#include "mdm/diffusion/compat.h"
#include "mdm/diffusion/schedule.h"

namespace mdm {

/// Share of the batch that reaches each level, cumulated and divided by the total: {2, 1} -> {2/3, 1}.
/// Empty for an empty mixed_ratio. ConfigError unless there is one positive number per level.
std::vector<double> cumulative_ratio(const std::vector<double>& mixed_ratio, size_t levels);

/// Rows of a batch of `batch` that each level works on: the first int(ratio * batch), as the reference
/// cuts them (in float64). `ratio`: cumulative_ratio(), empty: all rows everywhere.
/// ConfigError when a level would get none.
std::vector<int64_t> level_rows(const std::vector<double>& ratio, size_t levels, int64_t batch);

/// Where a batch stands in the batch of all processes and micro-steps: rows [first, first + its size) of
/// `total`. The levels of a mixed batch are cut by row of the whole. total 0: it is the whole.
struct BatchSlice {
  int64_t first = 0;
  int64_t total = 0;
};

/// What the model gets, and what its predictions are compared with. B_i rows at level i, outermost first.
struct TrainingInputs {
  std::vector<at::Tensor> x_t;      ///< (B_i, C, H_i, W_i)
  at::Tensor times;                 ///< (B) int64
  std::vector<at::Tensor> targets;  ///< (B_i, C, H_i, W_i), of the loss's type
  std::vector<at::Tensor> gammas;   ///< (B_i, 1, 1, 1) float32
  at::Tensor weights;               ///< (B) float32: of the examples in the mean
};

/// A loss is a pair: over ranks and micro-steps both are summed, then sum / weight is the mean.
struct LossValue {
  at::Tensor sum;                     ///< 0-dim, can be differentiated
  at::Tensor weight;                  ///< 0-dim
  at::Tensor per_example;             ///< (B) detached, without the examples' weights
  std::vector<at::Tensor> per_level;  ///< (B_i) detached: mean squared errors, without any weight
  at::Tensor mean() const;            ///< sum / weight
};

/// Mean squared error of predictions, per level and example, weighted as the config says.
class DiffusionLoss {
 public:
  /// Tables are put on `device`. ConfigError for settings that don't fit each other or the model, and for
  /// VDM weights that aren't finite.
  DiffusionLoss(const DiffusionConfig& config, const ModelConfig& model, at::Device device = at::kCPU,
                const Compat& compat = {});

  const Schedule& schedule() const { return schedule_; }
  /// Rows of each level in a slice with `batch` rows; a level may have none in a slice.
  std::vector<int64_t> rows(int64_t batch, const BatchSlice& slice = {}) const;

  /// `images` (B, C, H, W) in [-1, 1] of the highest level; `times` (B) int64 in [0, N);
  /// `noise` per level (B or B_i, C, H_i, W_i); `sample_weights` (B), e.g. 0 for a broken sample;
  /// undefined: 1 each.
  TrainingInputs prepare(const at::Tensor& images, const at::Tensor& times, const std::vector<at::Tensor>& noise,
                         const BatchSlice& slice = {}, const at::Tensor& sample_weights = {}) const;

  /// `predictions`: what the model made of inputs.x_t. Error when shapes differ.
  LossValue operator()(const TrainingInputs& inputs, const std::vector<at::Tensor>& predictions) const;

 private:
  DiffusionConfig config_;
  Schedule schedule_;
  Compat compat_;
  PredictionType target_;
  std::vector<double> ratio_, level_weights_;
  std::vector<bool> frames_;
  std::vector<at::Tensor> gammas_;  // (N + 1) per level
  at::Tensor weights_;              // (N + 1)
};

}  // namespace mdm
