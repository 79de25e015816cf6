// What the program `train_parallel` does: settings in, a run folder with checkpoints out.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "mdm/config/command_line.h"
#include "mdm/training/picture_scorer.h"

namespace mdm {

/// EX_TEMPFAIL: stopped by a signal after a checkpoint was written; started again, training goes on.
inline constexpr int kStoppedExitCode = 75;

/// The command line of `train_parallel`.
AppInfo train_app_info();

/// Trains as the command line says. In output_dir it leaves checkpoints (training/run_directory.h), the
/// reference's vis_model_*.pth, config.yaml, and train/ with TensorBoard events and metrics.jsonl. When there
/// is a checkpoint, it goes on from there: with the checkpoint's config below flags when no config file is given,
/// and refusing settings that differ otherwise, unless allow_config_change. `stop` is looked at in every step.
/// As one of several processes (distributed/launch.h) it trains with the others; rank 0 alone writes. `on_stuck`:
/// ProcessGroup::Options::on_stuck. `make_scorer`: makes what scores drawn pictures every now and then; empty: nothing
/// does. Returns 0 or kStoppedExitCode. Throws ConfigError, CheckpointError, DataError, DistributedError, Error.
int run_train(const ParsedCommandLine& command_line, const std::atomic<bool>& stop,
              const std::function<void(const std::string&)>& on_stuck = {}, const MakePictureScorer& make_scorer = {});

}  // namespace mdm
