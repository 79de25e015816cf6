// The program `evaluate` as a user runs it, and train_parallel with the settings eval_... in its YAML file: exit codes,
// what is said, what is written.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "apps/child.h"
#include "evaluation/golden.h"
#include "mdm/core/files.h"
#include "training/small_job.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using apps_test::Outcome;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class Program : public ::testing::Test {
 protected:
  Program() : folder_(testing::scratch_folder() / "program") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  Outcome evaluate(Words words) const {
    words.insert(words.end(), {"--threads", "1"});
    return apps_test::run(MDM_EVALUATE, words);
  }
  // FID in 64 features of this folder against the golden pictures.
  Words fid_of(const fs::path& generated) const {
    return {"--generated",    generated.string(),
            "--reference",    pictures_,
            "--fid-features", "64",
            "--inception",    testing::inception_weights().string()};
  }
  void expect_failure(const Words& words, int code, const std::string& part) const {
    const Outcome outcome = evaluate(words);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_TRUE(holds(outcome.err, part)) << outcome.err;
    EXPECT_EQ(outcome.out, "");
  }
  fs::path copied_pictures() const {
    const fs::path copy = folder_ / "copy";
    fs::copy(pictures_, copy, fs::copy_options::recursive);
    return copy;
  }

  const fs::path folder_;
  const std::string pictures_ = (testing::golden_folder() / "pictures").string();
};

TEST_F(Program, PrintsATableAndEndsWithZero) {
  const Outcome outcome = evaluate(fid_of(copied_pictures()));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(holds(outcome.out, "fid")) << outcome.out;
}

TEST_F(Program, CountsABrokenPictureAndEndsWithFour) {
  const fs::path generated = copied_pictures();
  write_file(generated / "broken.png", "\x89PNG\r\n\x1a\nnothing");
  Words words = fid_of(generated);
  const fs::path output = folder_ / "scores.json";
  words.insert(words.end(), {"--output", output.string()});
  const Outcome outcome = evaluate(words);
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  EXPECT_TRUE(holds(outcome.err, "broken.png")) << outcome.err;
  const Json report = Json::parse(read_text_file(output));
  EXPECT_EQ(report["generated"]["pictures"], testing::golden_pictures().size());
  EXPECT_EQ(report["generated"]["broken"], 1);
  EXPECT_LT(report["results"]["fid"].get<double>(), 1e-6);  // the others are the reference
}

TEST_F(Program, RefusesWhatItCantScoreAndSaysWhy) {
  expect_failure({}, 2, "nothing to score: give --generated");
  expect_failure({"--generated", pictures_}, 2, "metrics: none can be computed; give --inception FILE");
  Words words = fid_of(pictures_);
  words.back() = (folder_ / "gone.pth").string();
  expect_failure(words, 3, "gone.pth: No such file");
  fs::create_directories(folder_ / "empty");
  expect_failure(fid_of(folder_ / "empty"), 3, "empty: holds no picture");
  const fs::path captions = folder_ / "nine.txt";  // of seven pictures
  write_file(captions, "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
  expect_failure({"--generated", pictures_, "--prompts", captions.string(), "--clip", testing::clip_folder().string()},
                 3, "has 7 pictures, which can't be shared out evenly among the 9 captions");
}

// The settings of the first start stay those of the run.
TEST_F(Program, TrainingScoresWhatItDrawsAsItsYamlFileSays) {
  training_test::write_small_job(folder_);
  std::ofstream(folder_ / "eval.yaml") << "trainer:\n  eval_freq: 2\n  eval_samples: 3\n  eval_features: 64\n"
                                       << "  sample_steps: 2\n  eval_inception: " << testing::inception_weights()
                                       << "\n  eval_reference: " << pictures_ << "\n";
  const fs::path run = folder_ / "run";
  const auto train = [&](Words more) {
    Words words = {"--output-dir", run.string(), "--threads", "1"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = apps_test::run(MDM_TRAIN_PARALLEL, words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  };
  train({"--config-path", (folder_ / "flat.yaml").string(), "--config-path", (folder_ / "eval.yaml").string(),
         "--file-list", (folder_ / "train.tar").string(), "--vocab-file", (folder_ / "vocabulary.vocab").string(),
         "--num-training-steps", "3"});
  train({"--num-training-steps", "4", "--allow-config-change"});
  std::istringstream lines(read_text_file(run / "train/metrics.jsonl"));
  std::vector<int> scored;
  for (std::string line; std::getline(lines, line);) {
    const Json values = Json::parse(line);
    if (!values.contains("eval/fid")) continue;
    EXPECT_GT(values["eval/fid"].get<double>(), 0);
    scored.push_back(values["step"]);
  }
  EXPECT_EQ(scored, (std::vector<int>{2, 4}));
}

}  // namespace
}  // namespace mdm
