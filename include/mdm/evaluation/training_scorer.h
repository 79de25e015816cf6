// FID and CLIP score of what a model in training draws: what the setting `eval_freq` asks for.
#pragma once

#include <memory>

#include "mdm/training/picture_scorer.h"

namespace mdm {

/// What the settings `eval_...` ask for: "fid" (with eval_inception and eval_reference) and "clip_score" (with
/// eval_clip). Null without eval_freq, and, with a warning, where it has nothing to score with: files of the reference
/// may name it alone. Pictures as reference are scored here, once, a share of them in each process; all call it.
/// ConfigError when a score can't be made of the settings; DataError, CheckpointError for what they name.
std::unique_ptr<PictureScorer> make_training_scorer(const TrainerConfig& config, ProcessGroup& group);

}  // namespace mdm
