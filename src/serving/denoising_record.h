// What a look inside keeps of a job's first picture: its denoising path, how its prompt was attended to, and where the
// model's time went.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "mdm/pipeline.h"

namespace mdm::serving {

enum class PathView { kNoisy, kPredicted, kConditional, kUnconditional };

// Thread-safe: one thread adds, others read.
class DenoisingRecord {
 public:
  static constexpr int64_t kMaxFrames = 33;  // the first and the last step, and steps evenly between
  static constexpr int kMaxSide = 256;       // of a kept picture, larger ones are made smaller

  struct Frame {
    int64_t step = 0, time = 0;
    double seconds = 0;  // that the step took
    // By view, then by level, highest first; none of guidance's halves in a step without guidance.
    std::map<PathView, std::vector<Image>> pictures;
  };
  // A layer's map, the mean over the steps so far.
  struct Attention {
    std::string layer;
    size_t level = 0;
    int64_t height = 0, width = 0, tokens = 0;
    std::vector<double> weights;  // (tokens, height, width)
  };

  // Looks at picture `at` of the step's batch.
  void add(const GenerationStep& step, size_t at, size_t levels, double seconds);

  size_t frames() const;
  // What frames are there, without their pictures.
  std::vector<Frame> outline() const;
  // Nothing when there is no such frame, view or level.
  std::optional<Image> picture(size_t frame, PathView view, size_t level) const;
  std::vector<Attention> attention() const;
  std::vector<BlockTime> times() const;  // summed over the steps, in the order of the blocks
  double seconds() const;                // of all steps
  size_t bytes() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Frame> frames_;
  std::vector<Attention> attention_;  // sums
  int64_t attended_steps_ = 0;
  std::vector<BlockTime> times_;
  double seconds_ = 0;
};

}  // namespace mdm::serving
