// What a set of pictures leaves behind when it has been scored: sums of features, so that the pictures need not be
// kept.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/evaluation/picture_set.h"
#include "mdm/evaluation/preprocessing.h"
#include "mdm/evaluation/statistics.h"
#include "mdm/media/image.h"

namespace mdm {

class ClipModel;
class DinoV2;
class InceptionV3;
class ProcessGroup;

/// The networks that look at pictures; those that are not wanted are null.
struct ScoringNetworks {
  std::shared_ptr<const InceptionV3> inception;
  InceptionResize inception_resize = InceptionResize::kTensorFlow;
  int64_t inception_width = 2048;
  std::shared_ptr<const ClipModel> clip;  ///< pictures then need captions
  std::shared_ptr<const DinoV2> dinov2;
};

/// Pictures are numbered 0, 1, ... in the whole set; this process has those of `numbers`, and its k-th is number
/// numbers[k]. Each is added once, by any thread and in any order; they are summed in the order of k, so that the
/// result does not depend on which thread was faster.
class SetScores {
 public:
  struct Options {
    bool keep_features = false;  ///< of Inception, float32: what KID, precision and recall need
    bool captions = false;       ///< pictures are compared with captions
  };
  SetScores(const ScoringNetworks& networks, std::vector<size_t> numbers, const Options& options);
  ~SetScores();

  /// May take long. The calling thread should use one thread only for its tensors (score_set does).
  void add(size_t k, const Image& image, const std::string& caption);
  /// A picture that can't be read: counted, the first ones logged.
  void add_broken(size_t k, const std::string& why);
  /// What has been added, of all processes; all call it once. After that nothing is added.
  void finish(ProcessGroup& group);

  // After finish():
  int64_t count() const;                                    ///< pictures that were scored
  int64_t broken() const;                                   ///< that could not be
  const std::vector<std::string>& broken_pictures() const;  ///< the first of them, of this process
  /// DataError without that network, or for fewer than 2 pictures.
  FeatureStatistics inception() const;
  FeatureStatistics dinov2() const;
  at::Tensor inception_features() const;  ///< (count, D) in the order of the pictures' numbers
  /// The mean over the pictures of 100 cos(picture, caption), at least 0: torchmetrics' form of CLIPScore (Hessel et
  /// al. 2021, arXiv 2104.08718, scale each by 2.5 instead).
  double clip_score() const;
  int64_t cut_captions() const;  ///< captions of more tokens than CLIP takes

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Reads and scores the pictures of a set that `numbers` names, on `threads` threads, each with one picture in memory.
/// Each picture goes through the networks by itself: its features depend on nothing but the picture. `on_picture` is
/// called after each, by any thread. Throws what a network throws; pictures that can't be decoded are counted.
void score_set(const PictureSet& set, const std::vector<size_t>& numbers, int threads, SetScores& scores,
               const std::atomic<bool>* cancel = nullptr, const std::function<void()>& on_picture = {});

/// Calls work(k) for each k in [0, count), on `threads` threads whose tensor operations are serial. The first exception
/// ends all and is thrown.
void for_each_serially(size_t count, int threads, const std::function<void(size_t)>& work,
                       const std::atomic<bool>* cancel = nullptr);

}  // namespace mdm
