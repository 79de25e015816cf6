// Writes the checkpoints of a run and the model files beside them, at once or in the background.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "mdm/config/config.h"
#include "mdm/training/run_directory.h"
#include "mdm/training/training_state.h"

namespace mdm {

// Not for use by several threads at a time. While a save is on its way in the background, the run directory is its own.
class CheckpointWriter {
 public:
  // `run` may be null: then nothing is ever written.
  CheckpointWriter(const Config& config, RunDirectory* run, std::string text_vocabulary);
  // Waits for the background, and reports what went wrong there.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Whether a save of this step would have nothing to write. Not while a save is on its way in the background.
  bool has_all_of(uint64_t step) const;

  // Writes what is not there yet of this step. In the background: `content` holds copies, and what goes wrong is told
  // by report() or wait(). Throws what a checkpoint can't be written for; that model files can't is logged, and
  // missing_models() says so.
  void save(CheckpointContent content, const TrainingState& state, bool background);

  // Logs what a save in the background that has ended has failed with.
  void report();
  // Waits for the background; throws what went wrong there.
  void wait();
  // wait(), but what went wrong is only logged.
  void wait_and_report();

  // The checkpoint of this step has been read from disk; its model files may be missing.
  void found(uint64_t step);
  // Whether the checkpoint of this step is there and its model files are not.
  bool lacks_models(uint64_t step) const { return checkpoint_step_ == step && !has_all_of(step); }
  // Why the model files of the last checkpoint are missing; empty: they are not.
  const std::string& missing_models() const { return missing_models_; }

 private:
  void write(const CheckpointContent& content, const TrainingState& state);

  Config config_;
  RunDirectory* run_;
  std::string text_vocabulary_;
  std::optional<uint64_t> checkpoint_step_, models_step_;  // what there is
  std::string missing_models_;
  std::future<void> background_;
};

}  // namespace mdm
