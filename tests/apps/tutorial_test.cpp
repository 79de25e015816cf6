// The commands of README's section on training, taken from README itself, on little data and with few steps; and
// that a training which is interrupted goes on by the same command.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "apps/workshop.h"

namespace mdm::apps_test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSteps = "4";

// The lines of the section's shell blocks; a line that ends in a backslash goes on in the next.
std::vector<std::string> commands_of_readme() {
  std::ifstream readme(project() / "README.md");
  std::vector<std::string> commands;
  bool section = false, block = false, goes_on = false;
  for (std::string line; std::getline(readme, line);) {
    if (line.rfind("## ", 0) == 0) section = line == "## Training";
    if (!section) continue;
    if (line.rfind("```", 0) == 0) {
      block = line == "```sh";
      continue;
    }
    if (!block || line.empty()) continue;
    const bool more = line.back() == '\\';
    if (more) line.pop_back();
    if (goes_on) {
      commands.back() += line;
    } else {
      commands.push_back(line);
    }
    goes_on = more;
  }
  return commands;
}

std::string made_small(std::string command) {
  for (size_t at; (at = command.find("_009000.pth")) != std::string::npos;) command.replace(at, 7, "_000004");
  const auto is = [&](const char* start) { return command.rfind(start, 0) == 0; };
  if (is("demo_dataset shapes")) return command + " --count 40 --validation-count 4";
  if (is("demo_dataset prompts")) return command + " --count 2";
  if (is("train_parallel")) {
    return command + " --num-training-steps " + kSteps + " --save-freq 2 --trainer.batch-size 4 --sample-freq 0" +
           " --validation-samples 4 --validation-freq 4 --threads 1";
  }
  if (is("sample")) return command + " --num-inference-steps 2 --threads 1";
  return command;
}

class Tutorial : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory_symlink(project() / "configs", folder_.path() / "configs");
    options_.folder = folder_.path();
    const std::string bin = fs::path(MDM_SAMPLE).parent_path().string();
    const char* path = std::getenv("PATH");
    options_.environment = {{"PATH", bin + ":" + (path != nullptr ? path : "/usr/bin:/bin")}};
  }
  Outcome shell(const std::string& command) { return run("/bin/sh", {"-c", "exec " + command}, options_); }

  Folder folder_;
  RunOptions options_;
};

TEST_F(Tutorial, CommandsOfReadmeWork) {
  const auto commands = commands_of_readme();
  ASSERT_GE(commands.size(), 8U);
  for (const std::string& command : commands) {
    const Outcome outcome = shell(made_small(command));
    ASSERT_EQ(outcome.code, 0) << command << "\n" << outcome.err;
  }
  for (const char* file : {"runs/shapes_32/vis_model_000004.pth", "runs/shapes_64/vis_model_noema_000004.pth",
                           "runs/shapes_32/train/metrics.jsonl", "samples/sample_000000.png", "drawn/lst.json"}) {
    EXPECT_TRUE(fs::exists(folder_.path() / file)) << file;
  }
}

TEST_F(Tutorial, AnInterruptedTrainingGoesOn) {
  const auto commands = commands_of_readme();
  ASSERT_EQ(shell(made_small(commands.at(0))).code, 0);
  const std::string train = made_small(commands.at(1)) + " --num-training-steps 1000000";
  const fs::path run_folder = folder_.path() / "runs/shapes_32";
  options_.interrupt_when = [&] { return fs::exists(run_folder / "ckpt_0000002/manifest.json"); };
  const Outcome stopped = shell(train);
  EXPECT_EQ(stopped.code, 75) << stopped.err;
  EXPECT_TRUE(holds(stopped.out + stopped.err, "stopped at step")) << stopped.out;
  options_.interrupt_when = nullptr;
  uint64_t last = 0;
  for (const std::string& name : names_in(run_folder)) {
    if (name.rfind("ckpt_", 0) == 0) last = std::max<uint64_t>(last, std::stoull(name.substr(5)));
  }
  ASSERT_GE(last, 2U);
  const std::string end = std::to_string(last + 2);
  const Outcome finished = shell(made_small(commands.at(1)) + " --allow-config-change --num-training-steps " + end);
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_TRUE(holds(finished.out + finished.err, "finished at step " + end)) << finished.out;
}

}  // namespace
}  // namespace mdm::apps_test
