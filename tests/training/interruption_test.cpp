// A training that is killed and stopped at any moment ends in the same bits as one that isn't: a toy trainer, and
// train_parallel itself. MDM_KILLS sets the number of kills of all cases together (15; scripts/soak.sh asks for 200).
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/files.h"
#include "training/child.h"
#include "training/small_job.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration;
using std::chrono::steady_clock;

constexpr int kSteps = 24, kSaveFreq = 3;

std::string digest_in(const std::string& output) {
  const size_t at = output.find("digest ");
  return at == std::string::npos ? "" : output.substr(at + 7, 64);
}

class Interruption : public ::testing::Test {
 protected:
  std::vector<std::string> command(const fs::path& folder, int slow = 0) const {
    std::vector<std::string> out = {MDM_TOY_TRAINER, folder.string(), std::to_string(kSteps),
                                    std::to_string(kSaveFreq)};
    if (slow > 0) out.insert(out.end(), {"--slow", std::to_string(slow)});
    return out;
  }
  /// Runs to the end; the digest.
  std::string finish(const fs::path& folder) {
    Child child(command(folder), log());
    EXPECT_EQ(child.wait(), 0) << child.output();
    return digest_in(child.output());
  }
  fs::path log() const { return folder_.path() / "log"; }
  std::string expected() { return finish(folder_.path() / "whole"); }

  const TemporaryFolder folder_;
};

int64_t kills() {
  const char* text = std::getenv("MDM_KILLS");
  return text == nullptr ? 15 : std::atoll(text);
}

// What is killed, and how many of every 15 kills it gets.
struct Victim {
  const char* name;
  bool real;  // train_parallel, not the toy
  bool nested;
  int threads;
  const char* precision;
  int first_kill, last_kill;  // of 15
};

void PrintTo(const Victim& victim, std::ostream* out) { *out << victim.name; }

constexpr Victim kVictims[] = {
    {"toy_flat_one_thread", false, false, 1, "fp32", 0, 2},
    {"toy_nested_two_threads", false, true, 2, "fp32", 2, 5},
#ifdef MDM_TRAIN_PARALLEL
    {"train_parallel_flat_one_thread", true, false, 1, "fp32", 5, 8},
    {"train_parallel_nested_two_threads", true, true, 2, "fp32", 8, 12},
    {"train_parallel_flat_bf16_two_threads", true, false, 2, "bf16", 12, 15},
#endif
};

class Killed : public ::testing::TestWithParam<Victim> {
 protected:
  void SetUp() override {
    if (GetParam().real) write_small_job(folder_.path() / "data");
  }

  std::vector<std::string> command(const fs::path& run, int64_t steps = kSteps) const {
    const Victim& victim = GetParam();
    const std::string save_freq = std::to_string(kSaveFreq);
    if (!victim.real) {
      std::vector<std::string> words = {MDM_TOY_TRAINER, run.string(), std::to_string(steps), save_freq};
      if (victim.nested) words.emplace_back("--nested");
      return words;
    }
#ifdef MDM_TRAIN_PARALLEL
    std::vector<std::string> words = small_job_command(MDM_TRAIN_PARALLEL, folder_.path() / "data",
                                                       victim.nested ? "nested.yaml" : "flat.yaml", run);
    words.insert(words.end(), {"--num-training-steps", std::to_string(steps), "--save-freq", save_freq, "--threads",
                               std::to_string(victim.threads), "--precision", victim.precision});
    return words;
#else
    return {};
#endif
  }
  Child start(const fs::path& run, int64_t steps = kSteps) const {
    return {command(run, steps), log(), GetParam().threads};
  }
  fs::path log() const { return folder_.path() / "log"; }

  const TemporaryFolder folder_;
};

// The files for sampling hold what the checkpoint holds.
void expect_model_files(const fs::path& run) {
  for (const auto& [name, source] : {std::pair("vis_model_000024.pth", "ema.safetensors"),
                                     std::pair("vis_model_noema_000024.pth", "weights.safetensors")}) {
    ASSERT_TRUE(fs::exists(run / name)) << name;
    const TensorFile model = TensorFile::open(run / name);
    const TensorFile expected = TensorFile::open(checkpoint_of(run, kSteps) / source);
    EXPECT_GT(model.entries().size(), 20U);
    for (const TensorEntry& entry : model.entries()) {
      EXPECT_TRUE(model.tensor(entry.name).equal(expected.tensor(entry.name))) << name << ": " << entry.name;
    }
  }
}

// Losses by step. Each step stands there once at most: what a kill has taken from the buffers is missing.
std::map<int64_t, double> losses_of(const fs::path& run) {
  std::map<int64_t, double> losses;
  std::ifstream lines(run / "train" / "metrics.jsonl");
  for (std::string line; std::getline(lines, line);) {
    const auto values = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(values.is_object() && values.contains("loss")) << "a torn line: " << line;
    if (!values.is_object() || !values.contains("loss")) continue;
    const auto step = values.at("step").get<int64_t>();
    EXPECT_TRUE(losses.empty() || step > losses.rbegin()->first) << "step " << step << " is there again";
    losses[step] = values.at("loss").get<double>();
  }
  return losses;
}

void expect_metrics(const fs::path& run, const std::map<int64_t, double>& wanted) {
  const auto losses = losses_of(run);
  for (const auto& [step, loss] : losses) EXPECT_EQ(loss, wanted.at(step)) << "step " << step;
  size_t events = 0;
  for (const auto& entry : fs::directory_iterator(run / "train")) {
    events += entry.path().filename().string().rfind("events.out.tfevents.", 0) == 0 ? 1 : 0;
  }
  EXPECT_GE(events, 1U);
}

// F1
TEST_P(Killed, AtRandomMomentsEndsInTheSameBits) {
  const Victim& victim = GetParam();
  const auto start_time = steady_clock::now();
  const fs::path whole_run = folder_.path() / "whole";
  {
    Child child = start(whole_run);
    ASSERT_EQ(child.wait(), 0) << child.output();
  }
  const double whole = duration<double>(steady_clock::now() - start_time).count();
  const auto wanted = outcome_of(whole_run, kSteps);
  expect_model_files(whole_run);
  const auto losses = victim.real ? losses_of(whole_run) : std::map<int64_t, double>();
  ASSERT_EQ(losses.size(), victim.real ? static_cast<size_t>(kSteps) : 0U);

  std::mt19937 random(static_cast<unsigned>(victim.first_kill + 1));
  const int64_t mine = kills() * victim.last_kill / 15 - kills() * victim.first_kill / 15;
  for (int64_t done = 0, rounds = 0; done < mine; ++rounds) {
    const fs::path run = folder_.path() / ("run" + std::to_string(rounds));
    for (;;) {
      Child child = start(run);
      const double until = std::uniform_real_distribution<double>(0, 1.1 * whole)(random);
      const auto began = steady_clock::now();
      while (child.running() && duration<double>(steady_clock::now() - began).count() < until) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      int code = child.status();
      if (child.running()) {
        child.send(SIGKILL);
        code = child.wait();  // 0: it has ended between the look at it and the kill
      }
      if (code == 0) break;
      ASSERT_EQ(code, 128 + SIGKILL) << child.output();
      ++done;
    }
    EXPECT_EQ(outcome_of(run, kSteps), wanted) << "after " << done << " kills";
    expect_model_files(run);
    if (victim.real) expect_metrics(run, losses);
    fs::remove_all(run);
  }
}

INSTANTIATE_TEST_SUITE_P(Trainings, Killed, ::testing::ValuesIn(kVictims),
                         [](const auto& test) { return std::string(test.param.name); });

// F7: while it computes, and while it starts.
TEST_F(Interruption, SignalsStopWithACheckpointAndExitWith75) {
  const std::string wanted = expected();
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const fs::path run = folder_.path() / ("signal" + std::to_string(signal));
    {
      Child child(command(run, /*slow=*/20), log());
      ASSERT_TRUE(child.wait_for("step 5\n")) << child.output();
      child.send(signal);
      EXPECT_EQ(child.wait(), 75) << child.output();
      EXPECT_EQ(child.output().find("digest"), std::string::npos);
      EXPECT_EQ(child.output().find("step 9\n"), std::string::npos) << "it stops after the step that it is at";
    }
    EXPECT_EQ(finish(run), wanted);
  }
}

TEST_F(Interruption, ASecondSignalEndsAtOnce) {
  const fs::path run = folder_.path() / "twice";
  {
    Child child(command(run, /*slow=*/3000), log());
    ASSERT_TRUE(child.wait_for("step 1\n"));
    child.send(SIGTERM);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const auto began = steady_clock::now();
    child.send(SIGTERM);
    EXPECT_EQ(child.wait(), 128 + SIGTERM);
    EXPECT_LT(duration<double>(steady_clock::now() - began).count(), 1.0);
  }
  EXPECT_EQ(finish(run), expected());
}

// F18
TEST_F(Interruption, ASecondTrainerEndsAtOnce) {
  const fs::path run = folder_.path() / "shared";
  Child first(command(run, /*slow=*/50), log());
  ASSERT_TRUE(first.wait_for("step 1\n"));
  Child second(command(run), folder_.path() / "second");
  EXPECT_EQ(second.wait(), 1);
  EXPECT_NE(second.output().find("another training"), std::string::npos) << second.output();
}

#ifdef MDM_TRAIN_PARALLEL
// F7, F18: of train_parallel.
class Stopped : public Killed {};

TEST_P(Stopped, GoesOnToTheSameBitsAndAloneInItsFolder) {
  const fs::path run = folder_.path() / "stopped";
  int64_t last = 0;
  {
    Child child = start(run, /*steps=*/1'000'000);
    ASSERT_TRUE(child.wait_for("step 5: ")) << child.output();
    Child second(command(run), folder_.path() / "second");
    EXPECT_EQ(second.wait(), 1);
    EXPECT_NE(second.output().find("another training"), std::string::npos) << second.output();
    child.send(SIGUSR1);
    ASSERT_EQ(child.wait(), 75) << child.output();
  }
  for (const uint64_t step : RunDirectory(run, {}).checkpoints()) last = static_cast<int64_t>(step);
  ASSERT_GE(last, 5);
  const fs::path whole = folder_.path() / "whole";
  for (const fs::path& folder : {run, whole}) {
    Child child = start(folder, last + 2);
    ASSERT_EQ(child.wait(), 0) << child.output();
  }
  EXPECT_EQ(outcome_of(run, last + 2), outcome_of(whole, last + 2));
  EXPECT_EQ(losses_of(run), losses_of(whole));
}

INSTANTIATE_TEST_SUITE_P(Trainings, Stopped, ::testing::Values(kVictims[3]),
                         [](const auto& test) { return std::string(test.param.name); });
#endif

// F14: one seed, one number of threads, one result.
TEST_F(Interruption, TwoProcessesGiveTheSameBits) {
  EXPECT_EQ(finish(folder_.path() / "a"), finish(folder_.path() / "b"));
}

}  // namespace
}  // namespace mdm::training_test
