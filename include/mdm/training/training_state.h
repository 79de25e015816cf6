// What a training run is apart from its tensors: where it stands, and its counters.
#pragma once

#include <cstdint>
#include <string>

namespace mdm {

struct TrainingState {
  uint64_t step = 0;              ///< steps done: position in the batch plan
  uint32_t attempt = 0;           ///< raised by a rollback; part of every random number's address
  uint64_t updates = 0;           ///< optimizer steps made: of learning rate, bias correction and averaging
  uint64_t skipped = 0;           ///< steps without an update because loss or gradient were not finite
  uint64_t skipped_in_row = 0;    ///< ... the last ones
  uint64_t samples = 0;           ///< samples seen, holes not counted
  uint64_t seed = 0;              ///< of the run
  bool resumed_from_ema = false;  ///< resume_from_ema has had its effect

  /// Running statistics as the reference keeps them (ml_mdm/clis/train_parallel.py): loss of the last step, its
  /// average with outliers drawn in, and the variance around that.
  double loss = 0;
  double average_loss = 0, loss_variance = 0;
  uint64_t losses = 0;  ///< that went into these

  void add_loss(double value);

  /// JSON; floating-point numbers by their bits, so that nothing is lost.
  std::string to_json() const;
  /// CheckpointError when the text is no such state.
  static TrainingState from_json(const std::string& json);
};

}  // namespace mdm
