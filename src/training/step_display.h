// What a user sees of the steps: one line that is redrawn, or lines now and then.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "mdm/config/trainer_config.h"
#include "mdm/core/progress.h"
#include "mdm/training/trainer.h"

namespace mdm {

class StepDisplay {
 public:
  StepDisplay(const TrainerConfig& config, uint64_t last_step, const TrainingState& state,
              std::function<void(std::string_view)> sink);
  void add(const StepReport& report, const TrainingState& state);

 private:
  Progress progress_;
  uint64_t log_freq_;
  double seconds_ = 0, data_seconds_ = 0, images_ = 0;  // of the last steps, older ones weigh less
};

// Memory that the process has in use, in bytes; 0 where the system does not say.
uint64_t resident_bytes();

}  // namespace mdm
