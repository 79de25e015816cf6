// train_parallel and demo_dataset: exit codes and what is said with them, and a training whose numbers break down.
#include <cmath>
#include <sstream>

#include "apps/workshop.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/checkpoint/write.h"
#include "training/small_job.h"

namespace mdm::apps_test {
namespace {

namespace fs = std::filesystem;

class Train : public ::testing::Test {
 protected:
  void SetUp() override { training_test::write_small_job(folder_.path()); }

  Outcome train(const Words& more, const std::string& run_folder = "run") const {
    Words words = {"--config-path", folder_.file("flat.yaml"),
                   "--file-list",   folder_.file("train.tar"),
                   "--vocab-file",  folder_.file("vocabulary.vocab"),
                   "--output-dir",  folder_.file(run_folder),
                   "--threads",     "1"};
    words.insert(words.end(), more.begin(), more.end());
    return run(MDM_TRAIN_PARALLEL, words);
  }
  std::vector<nlohmann::json> metrics(const std::string& run_folder = "run") const {
    std::vector<nlohmann::json> out;
    std::istringstream lines(bytes_of(folder_.path() / run_folder / "train/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) out.push_back(nlohmann::json::parse(line));
    return out;
  }

  std::set<std::string> checkpoints() const {
    std::set<std::string> out;
    for (const std::string& name : names_in(folder_.path() / "run")) {
      if (name.rfind("ckpt_", 0) == 0) out.insert(name);
    }
    return out;
  }

  const Folder folder_;
};

TEST_F(Train, EndsWithZeroAndSaysWhere) {
  const Outcome outcome = train({"--num-training-steps", "2"});
  expect_success(outcome);
  EXPECT_EQ(outcome.out, "finished at step 2 in " + folder_.file("run") + "\n");
  EXPECT_TRUE(holds(outcome.err, "step 2: average loss ")) << outcome.err;
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos) << "no bar in a log file";
  EXPECT_TRUE(holds(outcome.err, "\ntraining: 2/2 ")) << outcome.err;
}

// F11: from step 4 on the gradient is more than a float32 holds.
TEST_F(Train, GoesBackOnceWhenItsNumbersBreakDownAndThenEndsWithOne) {
  expect_success(train({"--num-training-steps", "3"}));
  const Outcome outcome = train({"--loss-factor", "1e39", "--allow-config-change", "--num-training-steps", "100"});
  expect_failure(outcome, 1,
                 {"loss or gradient were not finite in 20 steps in a row, after going back once already",
                  "Lower lr, raise warmup_steps or lower gradient_clip_norm"});
  EXPECT_TRUE(holds(outcome.err, "(up to step 23): going back to step 3 with other noise")) << outcome.err;
  const auto lines = metrics();
  ASSERT_EQ(lines.size(), 23U) << "each step once: what was before the going back is taken back";
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].at("step"), i + 1);
    EXPECT_EQ(lines[i].at("gradient_norm").is_null(), i >= 3) << lines[i];
  }
  EXPECT_EQ(lines.back().at("skipped_steps"), 20);
  EXPECT_EQ(checkpoints(), std::set<std::string>{"ckpt_0000003"}) << "there is nothing new to keep";
}

TEST_F(Train, EndsWithOneWhenItStartsFromWeightsThatAreNoNumbers) {
  expect_success(train({"--num-training-steps", "1"}, "first"));
  const TensorFile sound = TensorFile::open(folder_.path() / "first/vis_model_000001.pth");
  std::vector<NamedTensor> tensors;
  for (const TensorEntry& entry : sound.entries()) tensors.push_back({entry.name, sound.tensor(entry.name).clone()});
  tensors.front().tensor.fill_(std::nan(""));
  write_pth(folder_.path() / "nan.pth", tensors, "{}");
  expect_failure(train({"--pretrained-vision-file", folder_.file("nan.pth"), "--num-training-steps", "100"}), 1,
                 {"not finite in 20 steps in a row, and there is no checkpoint yet to go back to"});
  EXPECT_TRUE(checkpoints().empty()) << "nothing that is worth keeping";
}

TEST_F(Train, ExitsWithTwoWhenItIsAskedForTheImpossible) {
  const auto without_folder = run(MDM_TRAIN_PARALLEL, {"--config-path", folder_.file("flat.yaml")});
  expect_failure(without_folder, 2, {"output_dir: no folder for checkpoints"});
  expect_failure(train({"--learning-rate", "1"}), 2, {"--learning-rate"});
  expect_failure(train({"--prompt", "a cat"}), 2, {"--prompt", "belongs to sampling"});
  expect_failure(train({"--vocab-file", folder_.file("gone.vocab")}), 2, {"gone.vocab' is not there"});
  expect_success(train({"--num-training-steps", "1"}));
  expect_failure(train({"--lr", "0.5"}), 2, {"trainer.lr: was 0.001, is 0.5", "--allow-config-change"});
}

TEST_F(Train, ExitsWithThreeWhenDataOrCheckpointCanNotBeRead) {
  expect_failure(train({"--file-list", folder_.file("gone.tsv")}), 3, {"gone.tsv"});
  expect_failure(train({"--pretrained-vision-file", folder_.write("text.pth", "hello\n")}), 3, {"text.pth"});

  expect_success(train({"--num-training-steps", "1"}, "damaged"));
  const fs::path weights = folder_.path() / "damaged/ckpt_0000001/weights.safetensors";
  fs::resize_file(weights, fs::file_size(weights) - 1);
  expect_failure(train({"--num-training-steps", "2"}, "damaged"), 3, {"none of the checkpoints can be used"});
}

TEST_F(Train, ExitsWithOneWhereItCanNotWrite) {
  folder_.write("file", "x");
  expect_failure(train({}, "file/run"), 1, {"file/run"});
}

Outcome demo_dataset(const Words& words) { return run(MDM_DEMO_DATASET, words); }

TEST(DemoDataset, ExitCodesTellUsageDataAndFailureApart) {
  const Folder folder;
  const std::string out = folder.file("set");
  const Outcome made = demo_dataset({"shapes", "--output-dir", out, "--count", "2", "--validation-count", "1"});
  expect_success(made);
  EXPECT_TRUE(holds(made.out, "train.tsv (2 samples)")) << made.out;

  expect_failure(demo_dataset({}), 2, {"usage: demo_dataset shapes | emoji | prompts | judge"});
  expect_failure(demo_dataset({"shapes"}), 2, {"shapes needs --output-dir"});
  expect_failure(demo_dataset({"shapes", "--output-dir", out, "--count", "many"}), 2,
                 {"--count: 'many' is not a whole number in 1.."});

  expect_failure(demo_dataset({"judge", "--images", folder.file("gone")}), 3, {"gone: is not there"});

  folder.write("file", "x");
  expect_failure(demo_dataset({"shapes", "--output-dir", folder.file("file/set"), "--count", "1"}), 1, {"file/set"});
}

}  // namespace
}  // namespace mdm::apps_test
