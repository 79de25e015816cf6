#include "mdm/evaluation/training_scorer.h"

#include <ATen/Parallel.h>

#include "evaluation/evaluate_settings.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/distributed/process_group.h"
#include "mdm/evaluation/inception.h"

namespace mdm {
namespace {

constexpr int64_t kPictures = 256;

class TrainingScorer : public PictureScorer {
 public:
  TrainingScorer(const ParsedCommandLine& line, ProcessGroup& group) : group_(group) {
    constexpr int64_t kMost = int64_t{1} << 40;
    every_ = line.whole_number("eval-freq", 0, 1, kMost);
    pictures_ = line.whole_number("eval-samples", kPictures, 2, kMost);
    evaluation::EvaluateSettings settings;
    settings.inception = line.option("eval-inception");
    settings.reference = line.option("eval-reference");
    settings.clip = line.option("eval-clip");
    settings.width = line.whole_number("eval-features", settings.width, 1, settings.width);
    settings.metrics.fid = !settings.inception.empty();
    settings.metrics.clip = !settings.clip.empty();
    if (settings.metrics.fid && settings.reference.empty()) {
      fail<ConfigError>("eval-inception: FID needs --eval-reference, the pictures to compare with or their statistics");
    }
    if (!settings.metrics.any()) {
      fail<ConfigError>(
          "eval-freq: nothing to score with; give --eval-inception with --eval-reference, or --eval-clip");
    }
    if (!InceptionV3::has_width(settings.width)) {
      fail<ConfigError>("eval-features: ", settings.width, " is none of 64, 192, 768, 2048");
    }
    networks_ = evaluation::load_networks(settings);
    if (settings.metrics.fid) read_reference(settings.reference);
    if (settings.metrics.fid && group.rank() == 0) {
      const std::string warning = small_set_warning(pictures_, settings.width);
      if (!warning.empty()) log_warning("eval-samples: ", warning);
    }
  }

  int64_t every() const override { return every_; }
  int64_t pictures() const override { return pictures_; }

  void begin(const std::vector<size_t>& numbers) override {
    SetScores::Options options;
    options.captions = networks_.clip != nullptr;
    scores_ = std::make_unique<SetScores>(networks_, numbers, options);
  }

  void add(size_t first, const std::vector<Image>& pictures, const std::vector<std::string>& captions) override {
    for_each_serially(pictures.size(), at::get_num_threads(),
                      [&](size_t i) { scores_->add(first + i, pictures[i], captions[i]); });
  }

  std::vector<std::pair<std::string, double>> finish() override {
    scores_->finish(group_);
    std::vector<std::pair<std::string, double>> values;
    if (networks_.inception) values.emplace_back("fid", frechet_distance(scores_->inception(), reference_));
    if (networks_.clip) values.emplace_back("clip_score", scores_->clip_score());
    scores_.reset();
    return values;
  }

 private:
  void read_reference(const std::string& where) {
    if (evaluation::is_statistics_file(where)) {
      for (auto& [name, statistics] : read_statistics(where)) {
        if (name.empty()) reference_ = statistics;
      }
      if (!reference_.mean.defined() || reference_.width() != networks_.inception_width) {
        fail<DataError>(printable(where, 1000), ": holds no statistics of ", networks_.inception_width, " features");
      }
      return;
    }
    ScoringNetworks networks = networks_;
    networks.clip.reset();
    const PictureSet set = PictureSet::open(where);
    std::vector<size_t> numbers;
    for (auto i = static_cast<size_t>(group_.rank()); i < set.size(); i += static_cast<size_t>(group_.size())) {
      numbers.push_back(i);
    }
    SetScores scores(networks, numbers, {});
    score_set(set, numbers, at::get_num_threads(), scores);
    scores.finish(group_);
    reference_ = scores.inception();
  }

  ProcessGroup& group_;
  int64_t every_ = 0, pictures_ = 0;
  ScoringNetworks networks_;
  FeatureStatistics reference_;
  std::unique_ptr<SetScores> scores_;
};

}  // namespace

std::vector<AppOption> training_scorer_options() {
  return {{"eval-freq", "N", "steps between two scores of drawn pictures, as `evaluate` makes them (default: none)"},
          {"eval-samples", "N", "pictures that these take (default 256)"},
          {"eval-inception", "FILE", "weights of FID's Inception-v3"},
          {"eval-reference", "DIR", "what FID compares with: pictures, or statistics (FILE.npz)"},
          {"eval-features", "N", "64, 192, 768 or 2048 features of Inception-v3 (default 2048)"},
          {"eval-clip", "FOLDER", "a CLIP in Hugging Face's form, or its id, for the CLIP score"}};
}

std::unique_ptr<PictureScorer> make_training_scorer(const ParsedCommandLine& command_line, ProcessGroup& group) {
  if (!command_line.has("eval-freq")) return nullptr;
  return std::make_unique<TrainingScorer>(command_line, group);
}

}  // namespace mdm
