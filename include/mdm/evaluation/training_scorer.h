// FID and CLIP score of what a model in training draws: what `train_parallel --eval-freq` asks for.
#pragma once

#include <memory>
#include <vector>

#include "mdm/training/picture_scorer.h"

namespace mdm {

/// The flags that say what is scored, for AppInfo::options: eval-freq and others.
std::vector<AppOption> training_scorer_options();

/// What these flags ask for: "fid" (with eval-inception and eval-reference) and "clip_score" (with eval-clip); null
/// without eval-freq. Pictures as reference are scored here, once, a share of them in each process; all call it.
/// ConfigError when no score can be made of the flags; DataError, CheckpointError for what they name.
std::unique_ptr<PictureScorer> make_training_scorer(const ParsedCommandLine& command_line, ProcessGroup& group);

}  // namespace mdm
