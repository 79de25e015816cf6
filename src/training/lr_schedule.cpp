#include "mdm/training/lr_schedule.h"

#include <algorithm>
#include <cmath>

namespace mdm {

LearningRate::LearningRate(const TrainerConfig& config, const Compat& compat)
    : lr_(config.lr),
      end_(config.lr_end),
      warmup_(static_cast<double>(config.warmup_steps)),
      total_(static_cast<double>(config.num_training_steps)),
      decay_(config.lr_decay),
      reference_(compat.reference_lr) {}

// `done`: updates made, this one included.
double LearningRate::factor(double done) const {
  constexpr double kPi = 3.14159265358979323846;
  if (done < warmup_) return done / warmup_;
  const double length = std::max(total_ - warmup_, 1.0);
  const double share = std::clamp((done - warmup_) / length, 0.0, 1.0);
  switch (decay_) {
    case LrDecay::kConstant: return 1;
    case LrDecay::kCosine: return end_ + (1 - end_) * 0.5 * (1 + std::cos(kPi * share));
    case LrDecay::kLinear: return end_ + (1 - end_) * (1 - share);
    case LrDecay::kInverseSqrt: return std::sqrt(std::max(warmup_, 1.0) / std::max(done, 1.0));
  }
  return 1;
}

double LearningRate::at(uint64_t updates) const {
  const auto n = static_cast<double>(updates);
  return lr_ * factor(reference_ ? std::max(n, 1.0) : n + 1);
}

double ema_decay_at(const TrainerConfig& config, uint64_t updates, const Compat& compat) {
  if (static_cast<int64_t>(updates) < compat.ema_copies) return 0;
  if (!config.ema_warmup) return config.ema_decay;
  const double n = static_cast<double>(updates) + 1;
  return std::min(config.ema_decay, (1 + n) / (10 + n));
}

}  // namespace mdm
