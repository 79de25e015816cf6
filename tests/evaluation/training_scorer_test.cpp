// What train_parallel --eval-freq asks for: the numbers of `evaluate` from pictures as they are drawn.
#include "mdm/evaluation/training_scorer.h"

#include <gtest/gtest.h>

#include "evaluation/golden.h"
#include "mdm/core/error.h"
#include "mdm/distributed/process_group.h"
#include "mdm/evaluation/inception.h"
#include "mdm/evaluation/scores.h"
#include "mdm/media/decode.h"

namespace mdm {
namespace {

TrainerConfig scoring_with_inception() {
  TrainerConfig config;
  config.eval_freq = 10;
  config.eval_samples = 14;
  config.eval_inception = testing::inception_weights().string();
  config.eval_reference = (testing::golden_folder() / "pictures").string();
  config.eval_features = 64;
  return config;
}

std::vector<Image> pictures() {
  std::vector<Image> images;
  for (const auto& path : testing::golden_pictures()) images.push_back(load_image(path));
  return images;
}

TEST(TrainingScorer, ScoresWhatIsDrawn) {
  ProcessGroup alone;
  TrainerConfig config = scoring_with_inception();
  config.eval_clip = testing::clip_folder().string();
  const auto scorer = make_training_scorer(config, alone);
  ASSERT_NE(scorer, nullptr);
  EXPECT_EQ(scorer->every(), 10);
  EXPECT_EQ(scorer->pictures(), 14);
  const std::vector<Image> images = pictures();
  const std::vector<std::string> captions(images.size(), "a fox");
  for (int round = 0; round < 2; ++round) {  // each is a set of its own
    scorer->begin({0, 1, 2, 3, 4, 5, 6});
    scorer->add(0, {images.begin(), images.begin() + 4}, {captions.begin(), captions.begin() + 4});
    scorer->add(4, {images.begin() + 4, images.end()}, {captions.begin() + 4, captions.end()});
    const auto values = scorer->finish();
    ASSERT_EQ(values.size(), 2U);
    EXPECT_EQ(values[0].first, "fid");
    EXPECT_LT(values[0].second, 1e-6);  // the same pictures as the reference
    EXPECT_EQ(values[1].first, "clip_score");
  }
  scorer->begin({0, 1, 2});
  scorer->add(0, {images[0], images[1], images[2]}, {"a", "b", "c"});
  EXPECT_GT(scorer->finish()[0].second, 1e-3);
}

TEST(TrainingScorer, IsAskedForByEvalFreqAndSomethingToScoreWith) {
  ProcessGroup alone;
  EXPECT_EQ(make_training_scorer(TrainerConfig(), alone), nullptr);
  TrainerConfig config = scoring_with_inception();
  config.eval_freq = 0;
  EXPECT_EQ(make_training_scorer(config, alone), nullptr);
  config = TrainerConfig();
  config.eval_freq = 5;  // as files of the reference may have it
  EXPECT_EQ(make_training_scorer(config, alone), nullptr);
}

TEST(TrainingScorer, RefusesSettingsThatCantWork) {
  ProcessGroup alone;
  TrainerConfig config = scoring_with_inception();
  config.eval_reference.clear();
  EXPECT_THROW(make_training_scorer(config, alone), ConfigError);
  config = scoring_with_inception();
  config.eval_features = 100;
  EXPECT_THROW(make_training_scorer(config, alone), ConfigError);
  config = scoring_with_inception();
  config.eval_reference = (testing::golden_folder() / "edm.npz").string();  // of 4 features
  EXPECT_THROW(make_training_scorer(config, alone), DataError);
}

}  // namespace
}  // namespace mdm
