// What a look inside keeps of a job's first picture.
#include "serving/denoising_record.h"

#include <algorithm>
#include <utility>

#include "mdm/media/resize.h"

namespace mdm::serving {
namespace {

Image kept(Image image) {
  const int side = DenoisingRecord::kMaxSide;
  if (image.width <= side && image.height <= side) return image;
  const int longer = std::max(image.width, image.height);
  return resize(image, std::max(1, image.width * side / longer), std::max(1, image.height * side / longer));
}

// Whether a run of so many steps keeps this one (counted from 1): all while they are few, else evenly chosen ones.
bool is_frame(int64_t step, int64_t steps) {
  if (steps <= DenoisingRecord::kMaxFrames) return true;
  const int64_t gaps = DenoisingRecord::kMaxFrames - 1;
  const auto slot = [&](int64_t s) { return (s - 1) * gaps / (steps - 1); };
  return step == 1 || slot(step) != slot(step - 1);
}

}  // namespace

void DenoisingRecord::add(const GenerationStep& step, size_t at, size_t levels, double seconds) {
  std::optional<Frame> frame;
  if (is_frame(step.step, step.steps)) {
    frame = Frame{step.step, step.time, seconds, {}};
    for (size_t level = 0; level < levels; ++level) {
      frame->pictures[PathView::kNoisy].push_back(kept(step.noisy(at, level)));
      frame->pictures[PathView::kPredicted].push_back(kept(step.predicted(at, level)));
      for (const auto& [view, half] : {std::pair(PathView::kConditional, GuidanceHalf::kConditional),
                                       std::pair(PathView::kUnconditional, GuidanceHalf::kUnconditional)}) {
        Image image = step.predicted_by(half, at, level);
        if (image.width > 0) frame->pictures[view].push_back(kept(std::move(image)));
      }
    }
  }
  const std::vector<AttentionMap> maps = step.attention(at);
  const std::vector<BlockTime> times = step.block_times();

  const std::lock_guard<std::mutex> lock(mutex_);
  if (frame) frames_.push_back(std::move(*frame));
  if (attention_.size() != maps.size()) {
    attention_.clear();
    attended_steps_ = 0;
    for (const AttentionMap& map : maps) {
      attention_.push_back(
          {map.layer, map.level, map.height, map.width, map.tokens, std::vector<double>(map.weights.size())});
    }
  }
  for (size_t i = 0; i < maps.size(); ++i) {
    std::vector<double>& sums = attention_[i].weights;
    for (size_t k = 0; k < std::min(sums.size(), maps[i].weights.size()); ++k) sums[k] += maps[i].weights[k];
  }
  ++attended_steps_;
  for (const BlockTime& time : times) {
    const auto same =
        std::find_if(times_.begin(), times_.end(), [&](const BlockTime& t) { return t.block == time.block; });
    if (same == times_.end()) {
      times_.push_back(time);
    } else {
      same->seconds += time.seconds;
    }
  }
  seconds_ += seconds;
}

size_t DenoisingRecord::frames() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return frames_.size();
}

std::vector<DenoisingRecord::Frame> DenoisingRecord::outline() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Frame> outline;
  for (const Frame& frame : frames_) {
    outline.push_back({frame.step, frame.time, frame.seconds, {}});
    for (const auto& [view, pictures] : frame.pictures) outline.back().pictures[view];
  }
  return outline;
}

std::optional<Image> DenoisingRecord::picture(size_t frame, PathView view, size_t level) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (frame >= frames_.size()) return std::nullopt;
  const auto found = frames_[frame].pictures.find(view);
  if (found == frames_[frame].pictures.end() || level >= found->second.size()) return std::nullopt;
  return found->second[level];
}

std::vector<DenoisingRecord::Attention> DenoisingRecord::attention() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Attention> means = attention_;
  for (Attention& map : means) {
    for (double& weight : map.weights) weight /= static_cast<double>(std::max<int64_t>(attended_steps_, 1));
  }
  return means;
}

std::vector<BlockTime> DenoisingRecord::times() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return times_;
}

double DenoisingRecord::seconds() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return seconds_;
}

size_t DenoisingRecord::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  size_t bytes = 0;
  for (const Frame& frame : frames_) {
    for (const auto& [view, pictures] : frame.pictures) {
      for (const Image& image : pictures) bytes += image.pixels.size();
    }
  }
  for (const Attention& map : attention_) bytes += map.weights.size() * sizeof(double);
  return bytes;
}

}  // namespace mdm::serving
