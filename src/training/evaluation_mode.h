// A model in training looks at pictures without learning from them.
#pragma once

#include <c10/core/GradMode.h>

#include "mdm/models/unet.h"
#include "mdm/training/parameter_arena.h"

namespace mdm {

// While it lives, the model has its averaged weights, no dropout, and no gradients are kept.
class EvaluationMode {
 public:
  EvaluationMode(UNet& model, ParameterArena& arena) : use_ema_(arena), model_(model) { model_.eval(); }
  ~EvaluationMode() { model_.train(); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  const c10::NoGradGuard no_gradients_;
  const ParameterArena::UseEma use_ema_;
  UNet& model_;
};

}  // namespace mdm
