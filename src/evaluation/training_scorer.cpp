#include "mdm/evaluation/training_scorer.h"

#include <ATen/Parallel.h>

#include "evaluation/evaluate_settings.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/distributed/process_group.h"
#include "mdm/evaluation/inception.h"

namespace mdm {
namespace {

class TrainingScorer : public PictureScorer {
 public:
  TrainingScorer(const TrainerConfig& config, ProcessGroup& group)
      : group_(group), every_(config.eval_freq), pictures_(config.eval_samples) {
    evaluation::EvaluateSettings settings;
    settings.inception = config.eval_inception;
    settings.reference = config.eval_reference;
    settings.clip = config.eval_clip;
    settings.width = config.eval_features;
    settings.metrics.fid = !settings.inception.empty();
    settings.metrics.clip = !settings.clip.empty();
    if (settings.metrics.fid && settings.reference.empty()) {
      fail<ConfigError>("eval_inception: FID needs eval_reference, the pictures to compare with or their statistics");
    }
    if (!InceptionV3::has_width(settings.width)) {
      fail<ConfigError>("eval_features: ", settings.width, " is none of 64, 192, 768, 2048");
    }
    networks_ = evaluation::load_networks(settings);
    if (settings.metrics.fid) read_reference(settings.reference);
    if (settings.metrics.fid && group.rank() == 0) {
      const std::string warning = small_set_warning(pictures_, settings.width);
      if (!warning.empty()) log_warning("eval_samples: ", warning);
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
  int64_t every_, pictures_;
  ScoringNetworks networks_;
  FeatureStatistics reference_;
  std::unique_ptr<SetScores> scores_;
};

}  // namespace

std::unique_ptr<PictureScorer> make_training_scorer(const TrainerConfig& config, ProcessGroup& group) {
  if (config.eval_freq == 0) return nullptr;
  if (config.eval_inception.empty() && config.eval_clip.empty()) {
    if (group.rank() == 0) {
      log_warning("eval_freq: no scores, for there is nothing to score with; give eval_inception with eval_reference, ",
                  "or eval_clip");
    }
    return nullptr;
  }
  return std::make_unique<TrainingScorer>(config, group);
}

}  // namespace mdm
