// The learning rate of each update.
#pragma once

#include <cstdint>

#include "mdm/config/trainer_config.h"
#include "mdm/diffusion/compat.h"

namespace mdm {

/// Rises from lr / warmup_steps to lr during the warm-up, then goes on as `lr_decay` says until
/// num_training_steps: constant; cosine or linear down to lr_end * lr; lr * sqrt(warmup_steps / n).
/// With compat.reference_lr the first two updates have lr / warmup_steps, as in the reference
/// (ml_mdm/lr_scaler.py).
class LearningRate {
 public:
  explicit LearningRate(const TrainerConfig& config, const Compat& compat = {});
  /// `updates`: how many have been made before this one.
  double at(uint64_t updates) const;

 private:
  double factor(double done) const;

  double lr_, end_;
  double warmup_, total_;
  LrDecay decay_;
  bool reference_;
};

/// The decay of the averaged weights in the update after `updates` others: ema_decay, or with ema_warmup
/// min(ema_decay, (1 + n) / (10 + n)) with n the number of updates including this one.
double ema_decay_at(const TrainerConfig& config, uint64_t updates, const Compat& compat = {});

}  // namespace mdm
