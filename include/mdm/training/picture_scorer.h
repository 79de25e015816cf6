// What judges the pictures that a model in training draws. This room only knows the interface: networks that look at
// pictures stand above it (mdm/evaluation/training_scorer.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mdm/config/trainer_config.h"
#include "mdm/media/image.h"

namespace mdm {

class ProcessGroup;

class PictureScorer {
 public:
  virtual ~PictureScorer() = default;
  virtual int64_t every() const = 0;     ///< steps between two scores, >= 1
  virtual int64_t pictures() const = 0;  ///< that one takes, of all processes, >= 2
  /// A new set of pictures, of which this process draws those with these numbers (of all processes' together).
  virtual void begin(const std::vector<size_t>& numbers) = 0;
  /// Pictures first, first + 1, ... of `numbers`, and what they are to show.
  virtual void add(size_t first, const std::vector<Image>& pictures, const std::vector<std::string>& captions) = 0;
  /// All processes call it. Names and values, "fid" and the like, the same in all. Throws when there are none.
  virtual std::vector<std::pair<std::string, double>> finish() = 0;
};

/// Makes what the settings `eval_...` ask for; null where they ask for none. All processes call it. ConfigError for
/// settings that can't work.
using MakePictureScorer =
    std::function<std::unique_ptr<PictureScorer>(const TrainerConfig& config, ProcessGroup& group)>;

}  // namespace mdm
