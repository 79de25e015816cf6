#include "mdm/evaluation/scores.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/distributed/process_group.h"
#include "mdm/evaluation/clip.h"
#include "mdm/evaluation/dinov2.h"
#include "mdm/evaluation/inception.h"
#include "mdm/media/decode.h"

namespace mdm {
namespace evaluation {

namespace {

constexpr size_t kRowsAtATime = 64;  // that are added to a covariance together
constexpr size_t kBrokenShown = 20;

}  // namespace

// Takes numbered rows as threads bring them, and hands them on in their order.
class RowQueue {
 public:
  explicit RowQueue(std::function<void(size_t k, const at::Tensor& row)> take) : take_(std::move(take)) {}
  // An undefined row: there is none with this number.
  void put(size_t k, const at::Tensor& row) {
    waiting_.emplace(k, row);
    for (auto first = waiting_.begin(); first != waiting_.end() && first->first == next_; ++next_) {
      if (first->second.defined()) take_(next_, first->second);
      first = waiting_.erase(first);
    }
  }

 private:
  std::function<void(size_t, const at::Tensor&)> take_;
  std::map<size_t, at::Tensor> waiting_;
  size_t next_ = 0;
};

// Moments of one network's features, and on demand the features.
class FeatureSum {
 public:
  FeatureSum(int64_t width, bool keep)
      : moments_(width), keep_(keep), queue_([this](size_t k, const at::Tensor& row) { take(k, row); }) {}

  void put(size_t k, const at::Tensor& row) { queue_.put(k, row); }

  void finish(ProcessGroup& group, const std::vector<size_t>& numbers, const std::string& what) {
    flush();
    moments_.sum_over(group, what);
    if (keep_) gather(group, numbers, what);
  }
  const MomentSum& moments() const { return moments_; }
  const at::Tensor& features() const { return features_; }

 private:
  void take(size_t k, const at::Tensor& row) {
    rows_.push_back(row);
    if (keep_) kept_.push_back(k);
    if (rows_.size() == kRowsAtATime) flush();
  }
  void flush() {
    if (rows_.empty()) return;
    const at::Tensor block = at::stack(rows_);
    moments_.add(block);
    if (keep_) blocks_.push_back(block);
    rows_.clear();
  }
  // Rows by the number of their picture, from all processes.
  void gather(ProcessGroup& group, const std::vector<size_t>& numbers, const std::string& what) {
    int64_t last = 0;
    for (const std::string& text :
         group.gather(concat(numbers.empty() ? 0 : numbers.back() + 1), what + ": pictures")) {
      last = std::max<int64_t>(last, std::stoll(text));
    }
    at::Tensor all = at::zeros({last, moments_.width()});
    at::Tensor there = at::zeros({last});
    const at::Tensor own = blocks_.empty() ? at::zeros({0, moments_.width()}) : at::cat(blocks_);
    for (size_t i = 0; i < kept_.size(); ++i) {
      const auto number = static_cast<int64_t>(numbers.at(kept_[i]));
      all[number].copy_(own[static_cast<int64_t>(i)]);
      there[number].fill_(1);
    }
    group.sum(all, what + ": features");
    group.sum(there, what + ": which features");
    features_ = all.index_select(0, there.nonzero().squeeze(1));
    blocks_.clear();
  }

  MomentSum moments_;
  bool keep_;
  RowQueue queue_;
  std::vector<at::Tensor> rows_, blocks_;
  std::vector<size_t> kept_;
  at::Tensor features_;
};

}  // namespace evaluation

using evaluation::FeatureSum;
using evaluation::RowQueue;

struct SetScores::Impl {
  Impl(const ScoringNetworks& all, std::vector<size_t> own, const Options& wanted)
      : networks(all),
        numbers(std::move(own)),
        options(wanted),
        clip_scores([this](size_t, const at::Tensor& row) { clip_sum += row.item<double>(); }) {
    if (networks.inception) inception.emplace(networks.inception_width, options.keep_features);
    if (networks.dinov2) dinov2.emplace(networks.dinov2->width(), false);
  }

  ScoringNetworks networks;
  std::vector<size_t> numbers;
  Options options;
  std::mutex mutex;  // of what follows
  std::optional<FeatureSum> inception, dinov2;
  RowQueue clip_scores;
  double clip_sum = 0;
  int64_t count = 0, cut = 0;
  int64_t broken = 0;
  std::vector<std::string> broken_names;

  bool scores_captions() const { return networks.clip && options.captions; }
};

SetScores::SetScores(const ScoringNetworks& networks, std::vector<size_t> numbers, const Options& options)
    : impl_(std::make_unique<Impl>(networks, std::move(numbers), options)) {}
SetScores::~SetScores() = default;

void SetScores::add(size_t k, const Image& image, const std::string& caption) {
  const c10::NoGradGuard no_grad;
  const ScoringNetworks& networks = impl_->networks;
  at::Tensor inception, dinov2, clip;
  bool cut = false;
  if (networks.inception) {
    const at::Tensor x = inception_input(image, networks.inception_resize).unsqueeze(0);
    inception = networks.inception->forward(x, networks.inception_width).squeeze(0);
  }
  if (networks.dinov2) {
    dinov2 = networks.dinov2->forward(dinov2_input(image, DinoV2::kSide).unsqueeze(0)).squeeze(0);
  }
  if (impl_->scores_captions()) {
    clip = at::full({}, networks.clip->similarity(image, caption, &cut), at::TensorOptions().dtype(at::kDouble));
  }
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->inception) impl_->inception->put(k, inception);
  if (impl_->dinov2) impl_->dinov2->put(k, dinov2);
  if (impl_->scores_captions()) impl_->clip_scores.put(k, clip);
  ++impl_->count;
  impl_->cut += cut ? 1 : 0;
}

void SetScores::add_broken(size_t k, const std::string& why) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->inception) impl_->inception->put(k, {});
  if (impl_->dinov2) impl_->dinov2->put(k, {});
  if (impl_->scores_captions()) impl_->clip_scores.put(k, {});
  if (impl_->broken_names.size() < evaluation::kBrokenShown) {
    log_warning("left out: ", why);
    impl_->broken_names.push_back(why);
  }
  ++impl_->broken;
}

void SetScores::finish(ProcessGroup& group) {
  group.wait_for_others("the end of scoring");
  if (impl_->inception) impl_->inception->finish(group, impl_->numbers, "features of Inception");
  if (impl_->dinov2) impl_->dinov2->finish(group, impl_->numbers, "features of DINOv2");
  const at::Tensor sums = at::zeros({4}, at::TensorOptions().dtype(at::kDouble));
  auto* s = sums.mutable_data_ptr<double>();
  s[0] = static_cast<double>(impl_->count);
  s[1] = static_cast<double>(impl_->broken);
  s[2] = impl_->clip_sum;
  s[3] = static_cast<double>(impl_->cut);
  group.sum(sums, "counts of pictures");
  impl_->count = static_cast<int64_t>(s[0]);
  impl_->broken = static_cast<int64_t>(s[1]);
  impl_->clip_sum = s[2];
  impl_->cut = static_cast<int64_t>(s[3]);
}

int64_t SetScores::count() const { return impl_->count; }
int64_t SetScores::broken() const { return impl_->broken; }
const std::vector<std::string>& SetScores::broken_pictures() const { return impl_->broken_names; }
int64_t SetScores::cut_captions() const { return impl_->cut; }

FeatureStatistics SetScores::inception() const {
  if (!impl_->inception) fail<DataError>("no features of Inception were computed");
  return impl_->inception->moments().statistics();
}

FeatureStatistics SetScores::dinov2() const {
  if (!impl_->dinov2) fail<DataError>("no features of DINOv2 were computed");
  return impl_->dinov2->moments().statistics();
}

at::Tensor SetScores::inception_features() const {
  if (!impl_->inception || !impl_->options.keep_features) fail<DataError>("no features of Inception were kept");
  return impl_->inception->features();
}

double SetScores::clip_score() const {
  if (!impl_->scores_captions() || impl_->count == 0) fail<DataError>("no picture was compared with a caption");
  return std::max(0.0, impl_->clip_sum / static_cast<double>(impl_->count));
}

void for_each_serially(size_t count, int threads, const std::function<void(size_t)>& work,
                       const std::atomic<bool>* cancel) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);  // of each of ours
  std::atomic<size_t> next{0};
  std::atomic<bool> ended{false};
  std::exception_ptr trouble;
  std::mutex mutex;
  const auto loop = [&] {
    for (size_t k = next++; k < count && !ended && (cancel == nullptr || !*cancel); k = next++) {
      try {
        work(k);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!trouble) trouble = std::current_exception();
        ended = true;
      }
    }
  };
  std::vector<std::thread> others;
  const auto wanted = static_cast<int>(std::min<size_t>(count, static_cast<size_t>(std::max(1, threads))));
  try {
    for (int i = 0; i < wanted; ++i) others.emplace_back(loop);
  } catch (const std::exception& error) {
    log_warning("only ", others.size(), " of ", wanted, " threads can be started: ", error.what());
    loop();
  }
  for (std::thread& thread : others) thread.join();
  at::set_num_threads(before);
  if (trouble) std::rethrow_exception(trouble);
}

void score_set(const PictureSet& set, const std::vector<size_t>& numbers, int threads, SetScores& scores,
               const std::atomic<bool>* cancel, const std::function<void()>& on_picture) {
  DecodeOptions decoding;
  decoding.apply_exif_orientation = false;  // Pillow's open() does not turn pictures either
  for_each_serially(
      numbers.size(), threads,
      [&](size_t k) {
        const size_t number = numbers[k];
        std::vector<uint8_t> bytes;
        Image image;
        std::string caption, why;
        try {
          set.read(number, bytes);
          image = decode_image(bytes.data(), bytes.size(), set.name(number), decoding);
          if (set.has_captions()) caption = set.caption(number);
        } catch (const DataError& error) {
          why = error.what();
        }
        std::vector<uint8_t>().swap(bytes);
        if (why.empty()) {
          scores.add(k, image, caption);
        } else {
          scores.add_broken(k, why);
        }
        if (on_picture) on_picture();
      },
      cancel);
}

}  // namespace mdm
