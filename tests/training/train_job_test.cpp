// train_parallel from its command line on: real tars, the text encoder that is trained along, resuming, and what
// is refused.
#include "mdm/training/train_job.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/training/data_sources.h"
#include "training/config_change.h"
#include "training/job_test.h"

namespace mdm::training_test {
namespace {

namespace fs = std::filesystem;

class TrainJobTest : public JobTest {
 protected:
  at::Tensor weight(const std::string& file, const std::string& name) const {
    return TensorFile::open(path(file)).tensor(name).clone();
  }
};

TEST_F(TrainJobTest, TrainsStopsAndGoesOnToTheSameBits) {
  EXPECT_EQ(train("whole", {}), 0);
  EXPECT_EQ(train("parts", {"--num-training-steps", "5"}), 0);
  stop_ = true;
  EXPECT_EQ(train("parts", {}), kStoppedExitCode);
  stop_ = false;
  EXPECT_TRUE(fs::exists(path("parts/ckpt_0000006")));
  EXPECT_EQ(train("parts", {"--num-training-steps", "12"}, /*config=*/""), 0) << "by the saved config";
  expect_same_bits("whole", "parts", "ckpt_0000012");
  for (const char* file :
       {"config.yaml", "train/metrics.jsonl", "vis_model_000012.pth", "vis_model_noema_000012.pth"}) {
    EXPECT_TRUE(fs::exists(path("whole/" + std::string(file)))) << file;
  }
}

TEST_F(TrainJobTest, ChangedSettingsAreListedAndRefused) {
  EXPECT_EQ(train("run", {"--num-training-steps", "3"}), 0);
  try {
    train("run", {"--lr", "0.5", "--gradient-clip-norm", "7"});
    FAIL() << "the change was not noticed";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("trainer.lr: was 0.001, is 0.5"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("trainer.gradient_clip_norm"), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find("num_training_steps"), std::string::npos) << "that is free";
  }
  EXPECT_EQ(train("run", {"--lr", "0.5", "--allow-config-change"}), 0);
}

TEST_F(TrainJobTest, StartsFromPretrainedWeightsStrictly) {
  EXPECT_EQ(train("first", {"--num-training-steps", "3"}), 0);
  EXPECT_EQ(train("second", {"--pretrained-vision-file", path("first/vis_model_000003.pth"), "--lr", "0",
                             "--num-training-steps", "1"}),
            0);
  EXPECT_TRUE(weight("second/ckpt_0000001/weights.safetensors", "conv_in.weight")
                  .equal(weight("first/ckpt_0000003/ema.safetensors", "conv_in.weight")));
  std::string embedding;  // the text encoder came along
  const TensorFile ema = TensorFile::open(path("first/ckpt_0000003/ema.safetensors"));
  for (const TensorEntry& entry : ema.entries()) {
    if (entry.name.rfind("text_encoder.", 0) == 0 && entry.shape.size() == 2) embedding = entry.name;
  }
  ASSERT_FALSE(embedding.empty());
  EXPECT_TRUE(weight("second/ckpt_0000001/weights.safetensors", embedding)
                  .equal(weight("first/ckpt_0000003/ema.safetensors", embedding)));
  EXPECT_THROW(train("third", {"--pretrained-vision-file", path("first/vis_model_000003.pth"),
                               "--unet_config.resolution_channels", "16,32"}),
               CheckpointError);
}

// Progressive training: a nested model whose inner level comes from a smaller training, frozen there.
TEST_F(TrainJobTest, ANestedModelTakesItsInnerLevelFromAnEarlierTraining) {
  EXPECT_EQ(train("inner", {"--num-training-steps", "3"}), 0);
  EXPECT_EQ(train("nested",
                  {"--unet_config.initialize_inner_with_pretrained", path("inner/vis_model_000003.pth"),
                   "--unet_config.freeze_inner_unet", "yes", "--num-training-steps", "2"},
                  "nested.yaml"),
            0);
  EXPECT_TRUE(weight("nested/ckpt_0000002/weights.safetensors", "inner_unet.conv_in.weight")
                  .equal(weight("inner/ckpt_0000003/ema.safetensors", "conv_in.weight")));
}

TEST_F(TrainJobTest, DrawsSamplesAndValidatesWithoutTouchingTheTraining) {
  EXPECT_EQ(train("plain", {}), 0);
  EXPECT_EQ(train("watched", {"--sample-freq", "4", "--sample-steps", "3", "--validation-file-list", path("train.tar"),
                              "--validation-freq", "3", "--validation-samples", "8"}),
            0);
  expect_same_bits("plain", "watched", "ckpt_0000012");
  EXPECT_TRUE(fs::exists(path("watched/samples/step_0000008.png")));
  std::vector<int64_t> steps;
  for (const auto& [step, loss] : scalars("watched", "validation/quartile_4")) {
    EXPECT_TRUE(std::isfinite(loss));
    steps.push_back(step);
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{3, 6, 9, 12}));
}

// 24 samples, 5 a step: the second epoch ends within step 10.
TEST_F(TrainJobTest, EndsAfterItsEpochs) {
  EXPECT_EQ(train("run", {"--trainer.batch-size", "5", "--num-epochs", "2", "--num-training-steps", "1000"}), 0);
  EXPECT_TRUE(fs::exists(path("run/vis_model_000010.pth")));
  EXPECT_EQ(scalars("run").size(), 10U);
  EXPECT_EQ(train("run", {"--trainer.batch-size", "5", "--num-epochs", "3", "--num-training-steps", "1000"}), 0)
      << "more epochs are no change of settings";
  EXPECT_EQ(scalars("run").size(), 15U);
  EXPECT_EQ(scalars("run", "samples").back(), (std::pair<int64_t, double>{15, 75}));
  EXPECT_EQ(train("few", {"--trainer.batch-size", "5", "--num-epochs", "2", "--num-training-steps", "7"}), 0);
  EXPECT_EQ(scalars("few").size(), 7U) << "what comes first ends it";
}

// The same step would mean other samples.
TEST_F(TrainJobTest, GoesOnWithTheDataThatItBeganWith) {
  EXPECT_EQ(train("run", {"--file-list", path("train.tsv"), "--num-training-steps", "3"}), 0);
  std::string list = bytes_of("train.tsv");
  const size_t first = list.find("a red blue");
  write_file(path("train.tsv"), list.replace(first, 10, "a red bead"));
  try {
    train("run", {"--file-list", path("train.tsv")});
    FAIL() << "the change was not noticed";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("data are not those of the checkpoint"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(train("run", {"--file-list", path("train.tsv"), "--allow-config-change"}), 0);
}

TEST_F(TrainJobTest, NamesWhatIsMissing) {
  EXPECT_THROW(run_train(parse_command_line({"--config_path", path("flat.yaml")}, train_app_info()), stop_),
               ConfigError);
  EXPECT_THROW(train("run", {"--file-list", path("absent.tsv")}), DataError);
}

TEST(ConfigChange, FindsWhatCountsAndNothingElse) {
  Config config = tiny_config();
  const std::string saved = config_to_json(config);
  EXPECT_TRUE(config_changes(saved, config).empty());
  Config free = config;
  free.trainer.log_freq = 7;
  free.trainer.num_training_steps = 99;
  free.runtime.threads = 3;
  free.runtime.cuda_graphs = false;
  free.sample.seed = 5;
  EXPECT_TRUE(config_changes(saved, free).empty());
  Config changed = config;
  changed.trainer.adam_beta2 = 0.5;
  changed.model.levels[0].resnet_config.dropout = 0.5;
  EXPECT_EQ(config_changes(saved, changed),
            (std::vector<std::string>{"trainer.adam_beta2: was 0.999, is 0.5",
                                      "unet_config.resnet_config.dropout: was 0.1, is 0.5"}));
  changed = config;
  changed.trainer.lr_decay = LrDecay::kCosine;
  const std::string falling = config_to_json(changed);
  changed.trainer.num_training_steps = 99;
  EXPECT_EQ(config_changes(falling, changed).size(), 1U) << "the learning rate depends on it";
}

TEST(MicroSteps, CoverTheBatchOfAllProcesses) {
  TrainerConfig trainer;
  trainer.batch_size = 4;
  trainer.num_gradient_accumulations = 3;
  std::set<int64_t> rows;
  for (int64_t rank = 0; rank < 2; ++rank) {
    for (const LoaderSlice& slice : micro_steps(trainer, rank, 2)) {
      for (int64_t row = 0; row < slice.rows; ++row) EXPECT_TRUE(rows.insert(slice.first_row + row).second);
    }
  }
  EXPECT_EQ(rows.size(), 24U);
  EXPECT_EQ(*rows.rbegin(), 23);
}

}  // namespace
}  // namespace mdm::training_test
