// The training loop: batches in, better weights out, and a run folder from which it goes on after any stop.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/config/config.h"
#include "mdm/diffusion/compat.h"
#include "mdm/distributed/process_group.h"
#include "mdm/models/unet.h"
#include "mdm/training/parameter_arena.h"
#include "mdm/training/run_directory.h"
#include "mdm/training/sources.h"
#include "mdm/training/training_state.h"

namespace mdm {

/// What one training step did.
struct StepReport {
  uint64_t step = 0;         ///< steps done, this one included
  double loss = 0;           ///< mean over the step's samples, of all processes; without loss_factor
  double lr = 0;             ///< that the update had
  double gradient_norm = 0;  ///< L2, of the mean's gradient, before clipping
  bool updated = false;      ///< false: loss or gradient were not finite, or there was no sample
  bool stop = false;         ///< a process was asked to stop
  int64_t images = 0;        ///< of all processes, holes not counted
  double seconds = 0;        ///< of the step
  double data_seconds = 0;   ///< ... of these, waiting for data
  /// ... of these, of the calling thread: text, noise and model; gradients; gradient norm, optimizer and average. On a
  /// GPU, which works on by itself, they say little.
  double forward_seconds = 0, backward_seconds = 0, update_seconds = 0;
  std::vector<at::Tensor> times, losses;  ///< per micro-step: (B) int64, and (B) float loss per sample, without weights
};

enum class TrainingEnd {
  kFinished,
  kStopped,  ///< asked to stop; a checkpoint was written
};

/// What a trainer works with, beside the config. All of it outlives the trainer.
struct TrainerParts {
  UNet* model = nullptr;          ///< float32 weights to start from, on the CPU; the trainer takes them over
  BatchSource* data = nullptr;    ///< at step 0
  TextSource* text = nullptr;     ///< of the width that the model was made with; nullptr: a model without text
  ProcessGroup* group = nullptr;  ///< of which each process holds the whole model; nullptr: one process
  RunDirectory* run = nullptr;    ///< of rank 0, the others give none; nullptr: nothing is saved
  at::Device device = at::kCPU;
  uint64_t last_step = 0;  ///< > 0: training ends here when that is before num_training_steps (num_epochs)
  const std::atomic<bool>* stop = nullptr;  ///< looked at in every step
  std::function<void(const StepReport&)> on_step;
  std::function<void(std::string_view)> show;  ///< takes the progress display; empty: stderr
  Compat compat;
};

/// One per run. Of the config it reads the sections trainer, diffusion, model and runtime.
///
/// In this order: weights into the model (set_starting_point() or a file; make_model() leaves them uninitialised), the
/// Trainer, resume() where RunDirectory::latest() has found a checkpoint, then run(), or step() and save() by hand.
/// tests/consumer/train.cpp is a whole program.
class Trainer {
 public:
  /// `seed`: of the run (TrainerConfig::seed, drawn by the caller when that is -1).
  Trainer(const Config& config, uint64_t seed, const TrainerParts& parts);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// Goes on from a checkpoint: weights, averages, moments, state, place in the data. CheckpointError; ConfigError when
  /// the data is not that of the checkpoint.
  void resume(const SavedCheckpoint& checkpoint);

  /// Trains until num_training_steps, or until asked to stop. Checkpoints every save_freq steps and at the end;
  /// one that can't be written in between is reported, and training goes on; none is written between steps that
  /// brought no update. When a step fails before its update (DataError, too little memory) a checkpoint is written
  /// first. After max_skipped_steps steps without an update in a row it goes back to the last checkpoint, once, and
  /// then throws Error, as it does when the last checkpoint can't be written. What goes wrong in one process ends the
  /// step in all: the others throw DistributedError, which names it.
  TrainingEnd run();

  /// One step; run() is made of these. Saves nothing.
  StepReport step();
  /// Writes a checkpoint of the present state, and vis_model_*.pth. Throws Error.
  void save();

  const TrainingState& state() const;
  ParameterArena& arena();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
