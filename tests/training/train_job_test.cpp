// train_parallel from its command line on: real tars, the text encoder that is trained along, resuming, and what
// is refused.
#include "mdm/training/train_job.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/data/tar.h"
#include "mdm/media/png.h"
#include "training/config_change.h"
#include "training/data_sources.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

namespace fs = std::filesystem;

const char* const kVocabulary =
    "<pad>\t0\n</"
    "s>\t0\n<unk>\t0\n\xE2\x96\x81\t-2\na\t-4\nb\t-4\nc\t-4\nd\t-4\ne\t-4\ng\t-4\nl\t-4\nn\t-4\nr\t-4\nu\t-4\n";

const char* const kConfig = R"(
model: unet
unet_config:
  resolution_channels: [8, 32]
  num_resnets_per_resolution: 1
  attention_levels: [1]
  num_attention_layers: [0, 1]
  conditioning_feature_proj_dim: -1
  micro_conditioning: scale:16
  resnet_config: {num_groups_norm: 4}
diffusion_config:
  use_vdm_loss_weights: false
  sampler_config: {num_diffusion_steps: 50, schedule_type: DEEPFLOYD, prediction_type: V_PREDICTION}
reader_config: {image_size: 8, smaller_side_size: 8, num_readers: 1, max_token_length: 16}
text: {text_kind: joint, joint_width: 16, joint_layers: 1, joint_heads: 2, joint_tokens: 16}
trainer: {batch_size: 4, num_training_steps: 12, use_adamw: true, warmup_steps: 3, save_freq: 5, seed: 3}
)";

class TrainJobTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_file(path("vocabulary.vocab"), kVocabulary);
    write_file(path("config.yaml"), kConfig);
    TarWriter tar(path("train.tar"));
    for (int i = 0; i < 24; ++i) {
      Image image(8, 8, 3);
      const at::Tensor pixels = picture(i % kKinds, 8);
      std::copy_n(pixels.const_data_ptr<uint8_t>(), image.pixels.size(), image.pixels.data());
      write_png(path("one.png"), image);
      tar.add(std::to_string(i) + ".png", read_text_file(path("one.png")));
      tar.add(std::to_string(i) + ".txt", i % 2 == 0 ? "a red blue" : "bag and lace");
    }
    tar.finish();
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  int train(const std::string& run, std::vector<std::string> flags, bool with_config = true) {
    std::vector<std::string> arguments = {"--output-dir", path(run), "--threads", "1"};
    if (with_config) {
      arguments.insert(arguments.end(), {"--config_path", path("config.yaml"), "--file-list", path("train.tar"),
                                         "--vocab_file", path("vocabulary.vocab")});
    }
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return run_train(parse_command_line(arguments, train_app_info()), stop_);
  }

  at::Tensor weight(const std::string& file, const std::string& name) const {
    return TensorFile::open(path(file)).tensor(name).clone();
  }

  const TemporaryFolder folder_;
  std::atomic<bool> stop_{false};
};

TEST_F(TrainJobTest, TrainsStopsAndGoesOnToTheSameBits) {
  EXPECT_EQ(train("whole", {}), 0);
  EXPECT_EQ(train("parts", {"--num-training-steps", "5"}), 0);
  stop_ = true;
  EXPECT_EQ(train("parts", {}), kStoppedExitCode);
  stop_ = false;
  EXPECT_TRUE(fs::exists(path("parts/ckpt_0000006")));
  EXPECT_EQ(train("parts", {"--num-training-steps", "12"}, /*with_config=*/false), 0) << "by the saved config";
  for (const char* file : {"weights.safetensors", "ema.safetensors", "moments.safetensors"}) {
    EXPECT_EQ(read_text_file(path("whole/ckpt_0000012/" + std::string(file))),
              read_text_file(path("parts/ckpt_0000012/" + std::string(file))))
        << file;
  }
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
  std::string nested = kConfig;
  nested.replace(nested.find("model: unet"), 11, "model: nested_unet");
  nested.replace(nested.find("image_size: 8, smaller_side_size: 8"), 35, "image_size: 16, smaller_side_size: 16");
  const std::string inner_lines = R"(  initialize_inner_with_pretrained: )" + path("inner/vis_model_000003.pth") + R"(
  freeze_inner_unet: true
  inner_config:
    resolution_channels: [8, 32]
    num_resnets_per_resolution: 1
    attention_levels: [1]
    num_attention_layers: [0, 1]
    conditioning_feature_proj_dim: -1
    micro_conditioning: scale:16
    skip_mid_blocks: false
    skip_cond_emb: false
    resnet_config: {num_groups_norm: 4}
)";
  nested.replace(nested.find("  attention_levels: [1]\n  num_attention_layers: [0, 1]\n"), 55,
                 "  attention_levels: []\n  temporal_dim: 32\n");
  nested.insert(nested.find("diffusion_config:"), inner_lines);
  write_file(path("config.yaml"), nested);
  EXPECT_EQ(train("nested", {"--num-training-steps", "2"}), 0);
  EXPECT_TRUE(weight("nested/ckpt_0000002/weights.safetensors", "inner_unet.conv_in.weight")
                  .equal(weight("inner/ckpt_0000003/ema.safetensors", "conv_in.weight")));
}

TEST_F(TrainJobTest, DrawsSamplesAndValidatesWithoutTouchingTheTraining) {
  EXPECT_EQ(train("plain", {}), 0);
  EXPECT_EQ(train("watched", {"--sample-freq", "4", "--sample-steps", "3", "--validation-file-list", path("train.tar"),
                              "--validation-freq", "3", "--validation-samples", "8"}),
            0);
  EXPECT_EQ(read_text_file(path("plain/ckpt_0000012/weights.safetensors")),
            read_text_file(path("watched/ckpt_0000012/weights.safetensors")));
  EXPECT_TRUE(fs::exists(path("watched/samples/step_0000008.png")));
  EXPECT_NE(read_text_file(path("watched/train/metrics.jsonl")).find("validation/quartile_4"), std::string::npos);
}

TEST_F(TrainJobTest, NamesWhatIsMissing) {
  EXPECT_THROW(run_train(parse_command_line({"--config_path", path("config.yaml")}, train_app_info()), stop_),
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
