// train_parallel as several processes: by every launcher's environment, and with one of them killed, stopped, or at
// odds with the others. MDM_PROCESS_FAULTS sets how many kills and stops there are together (8; scripts/soak.sh asks
// for 80).
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <thread>

#include "distributed/ranks.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/training/run_directory.h"
#include "training/child.h"
#include "training/small_job.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using Environment = std::map<std::string, std::string>;

constexpr int kSteps = 12;
constexpr auto kEndWithin = std::chrono::seconds(30);  // after the time-out, where one counts

double seconds_since(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

Environment as_torchrun(int64_t rank, int64_t world, int64_t port) {
  return {{"RANK", std::to_string(rank)},       {"WORLD_SIZE", std::to_string(world)},
          {"LOCAL_RANK", std::to_string(rank)}, {"LOCAL_WORLD_SIZE", std::to_string(world)},
          {"MASTER_ADDR", "127.0.0.1"},         {"MASTER_PORT", std::to_string(port)}};
}

class Processes : public ::testing::Test {
 protected:
  Processes() { write_small_job(data()); }

  fs::path data() const { return folder_.path() / "data"; }
  fs::path log(int64_t rank) const { return folder_.path() / concat("log_", rank); }
  fs::path run() const { return folder_.path() / "run"; }

  std::vector<std::string> command(const fs::path& run, const std::vector<std::string>& extra = {}) const {
    std::vector<std::string> words = small_job_command(MDM_TRAIN_PARALLEL, data(), "flat.yaml", run);
    words.insert(words.end(), {"--global-batch-size", "4", "--adam-eps", "1e-4", "--num-training-steps",
                               std::to_string(kSteps), "--threads", "1"});
    words.insert(words.end(), extra.begin(), extra.end());
    return words;
  }

  // Starts all ranks; `extra` are flags of all of them, `own` of some.
  std::vector<std::unique_ptr<Child>> start(int64_t world, const std::vector<std::string>& extra = {},
                                            const std::map<int64_t, std::vector<std::string>>& own = {}) {
    const int64_t port = distributed_test::free_port();
    std::vector<std::unique_ptr<Child>> ranks;
    for (int64_t rank = 0; rank < world; ++rank) {
      std::vector<std::string> words = command(run(), extra);
      if (const auto mine = own.find(rank); mine != own.end()) {
        words.insert(words.end(), mine->second.begin(), mine->second.end());
      }
      ranks.push_back(std::make_unique<Child>(words, log(rank), 1, as_torchrun(rank, world, port)));
    }
    return ranks;
  }

  static void expect_all(std::vector<std::unique_ptr<Child>>& ranks, int status) {
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      EXPECT_EQ(ranks[rank]->wait(), status) << "rank " << rank << ":\n" << ranks[rank]->output();
    }
  }

  // All but `except` end by themselves, not well, and soon; the time it took.
  static double expect_ends(std::vector<std::unique_ptr<Child>>& ranks, int64_t except, std::chrono::seconds limit) {
    const auto start = steady_clock::now();
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      if (static_cast<int64_t>(rank) == except) continue;
      while (ranks[rank]->running() && steady_clock::now() - start < limit) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      EXPECT_FALSE(ranks[rank]->running()) << "rank " << rank << " goes on:\n" << ranks[rank]->output();
      EXPECT_NE(ranks[rank]->status(), 0) << "rank " << rank << ":\n" << ranks[rank]->output();
    }
    return seconds_since(start);
  }

  // The largest difference of a weight.
  static double distance(const fs::path& a, const fs::path& b, int64_t step = kSteps) {
    double worst = 0;
    for (const char* part : {"weights.safetensors", "ema.safetensors"}) {
      const TensorFile first = TensorFile::open(checkpoint_of(a, step) / part);
      const TensorFile second = TensorFile::open(checkpoint_of(b, step) / part);
      EXPECT_EQ(first.entries().size(), second.entries().size());
      for (const TensorEntry& entry : first.entries()) {
        worst = std::max(worst, (first.tensor(entry.name) - second.tensor(entry.name)).abs().max().item<double>());
      }
    }
    return worst;
  }

  const TemporaryFolder folder_;
};

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' in:\n" << text;
}

TEST_F(Processes, TrainTheModelThatOneWould) {
  const fs::path one = folder_.path() / "one";
  Child child(command(one), log(0), 1);
  ASSERT_EQ(child.wait(), 0) << child.output();
  for (const int64_t world : {2, 4}) {
    fs::remove_all(run());
    auto ranks = start(world);
    expect_all(ranks, 0);
    if (HasFailure()) return;
    EXPECT_LT(distance(run(), one), 5e-6) << world;
    expect_in(ranks[0]->output(), concat("process 0 of ", world));
    EXPECT_EQ(ranks[1]->output().find("step 1:"), std::string::npos) << "only rank 0 shows the steps";
  }
}

// One starts, two go on, then four, then one again: the data, and so the model, are those of one process.
TEST_F(Processes, GoOnWithAnotherWorldSize) {
  const fs::path one = folder_.path() / "one";
  Child whole(command(one), log(9), 1);
  ASSERT_EQ(whole.wait(), 0) << whole.output();
  int64_t step = 0;
  for (const int64_t world : {1, 2, 4, 1}) {
    step += 3;
    auto ranks = start(world, {"--num-training-steps", std::to_string(step)});
    expect_all(ranks, 0);
    if (HasFailure()) return;
  }
  EXPECT_LT(distance(run(), one), 5e-6);
}

// The optimizer's state divided among two, then four, then not at all; with pictures and validation in between, which
// need all of it.
TEST_F(Processes, ShareTheOptimizer) {
  const fs::path one = folder_.path() / "one";
  Child whole(command(one), log(9), 1);
  ASSERT_EQ(whole.wait(), 0) << whole.output();
  int64_t step = 0;
  for (const int64_t world : {2, 4, 1}) {
    step += 4;
    auto ranks = start(world, {"--num-training-steps", std::to_string(step), "--shard-optimizer", "true",
                               "--sample-freq", "2", "--sample-steps", "2", "--validation-file-list",
                               (data() / "train.tar").string(), "--validation-freq", "3"});
    expect_all(ranks, 0);
    if (world > 1) {
      expect_in(ranks[0]->output(), "divided among the processes");
    }
    char picture[40];
    std::snprintf(picture, sizeof picture, "step_%07d.png", static_cast<int>(step));
    EXPECT_TRUE(fs::exists(run() / "samples" / picture)) << picture;
    if (HasFailure()) return;
  }
  EXPECT_LT(distance(run(), one), 5e-6);
}

// The variables of each launcher, as it sets them.
TEST_F(Processes, AreStartedByEveryLauncher) {
  const std::string port = std::to_string(distributed_test::free_port());
  struct Launcher {
    const char* name;
    std::function<Environment(const std::string& rank)> environment;
    std::vector<std::string> flags;
  };
  const std::vector<Launcher> launchers = {
      {"Open MPI",
       [](const std::string& rank) {
         return Environment{{"OMPI_COMM_WORLD_RANK", rank},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", rank},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                            {"PMIX_RANK", rank},
                            {"PMIX_NAMESPACE", concat("job", ::getpid())}};
       },
       {}},
      {"MPICH",
       [&](const std::string& rank) {
         return Environment{{"PMI_RANK", rank},
                            {"PMI_SIZE", "2"},
                            {"MPI_LOCALRANKID", rank},
                            {"MPI_LOCALNRANKS", "2"},
                            {"MASTER_PORT", port}};
       },
       {}},
      {"Slurm",
       [](const std::string& rank) {
         return Environment{{"SLURM_PROCID", rank},
                            {"SLURM_NTASKS", "2"},
                            {"SLURM_LOCALID", rank},
                            {"SLURM_STEP_ID", "0"},
                            {"SLURM_STEP_NUM_NODES", "1"},
                            {"SLURM_STEP_NODELIST", "node[1]"},
                            {"SLURM_JOB_ID", std::to_string(::getpid())}};
       },
       {}},
      {"the command line",
       [](const std::string&) { return Environment(); },
       {"--world-size", "2", "--master-addr", "127.0.0.1", "--master-port", port}},
      {"a file",
       [](const std::string&) { return Environment(); },
       {"--world-size", "2", "--rendezvous-file", (folder_.path() / "meeting").string()}}};
  for (const Launcher& launcher : launchers) {
    fs::remove_all(run());
    std::vector<std::unique_ptr<Child>> ranks;
    for (const std::string rank : {"0", "1"}) {
      std::vector<std::string> words = command(run(), launcher.flags);
      if (!launcher.flags.empty()) words.insert(words.end(), {"--rank", rank});
      ranks.push_back(std::make_unique<Child>(words, log(std::stoll(rank)), 1, launcher.environment(rank)));
    }
    expect_all(ranks, 0);
    expect_in(ranks[0]->output(), "process 0 of 2");
    if (HasFailure()) {
      ADD_FAILURE() << launcher.name;
      return;
    }
  }
}

TEST_F(Processes, AreStartedByMpirun) {
  const fs::path mpirun = "/usr/bin/mpirun";
  if (!fs::exists(mpirun)) GTEST_SKIP() << "mpirun is not installed";
  std::vector<std::string> words = {mpirun.string(), "-n", "2", "--oversubscribe"};
  if (::geteuid() == 0) words.emplace_back("--allow-run-as-root");
  const std::vector<std::string> program = command(run());
  words.insert(words.end(), program.begin(), program.end());
  {
    Child child(words, log(0), 1);
    ASSERT_EQ(child.wait(), 0) << child.output();
    expect_in(child.output(), "process 0 of 2");
    EXPECT_TRUE(fs::exists(checkpoint_of(run(), kSteps)));
  }
  // One of them fails: mpirun ends, not well, and nobody is left.
  std::ofstream(data() / "train.tar", std::ios::trunc) << "no tar";
  fs::remove_all(run());
  Child child(words, log(0), 1);
  EXPECT_NE(child.wait(), 0);
}

TEST_F(Processes, StopTogetherWhenOneIsAskedTo) {
  auto ranks = start(2, {"--num-training-steps", "100000", "--save-freq", "100000"});
  ASSERT_TRUE(ranks[0]->wait_for("step 5:")) << ranks[0]->output() << ranks[1]->output();
  ranks[1]->send(SIGTERM);
  expect_all(ranks, 75);
  const auto saved = RunDirectory::peek(run());
  ASSERT_TRUE(saved);
  EXPECT_GE(saved->step, 5U);
}

int64_t faults() {
  const char* text = std::getenv("MDM_PROCESS_FAULTS");
  return text == nullptr ? 8 : std::atoll(text);
}

// A rank killed at a random moment: the others end in seconds and say who is missing; started again, the job ends in
// the bits of one that nobody killed. The same with a rank that is stopped and never goes on.
TEST_F(Processes, EndWhenOneIsGoneAndGoOnExactly) {
  constexpr int64_t kWorld = 2;
  std::vector<std::string> both[2];
  std::map<std::string, std::string> outcomes[2];
  for (const bool sharded : {false, true}) {
    both[sharded] = {"--num-training-steps", "40", "--save-freq",       "4",
                     "--collective-timeout", "4",  "--shard-optimizer", sharded ? "true" : "false"};
    auto undisturbed = start(kWorld, both[sharded]);
    expect_all(undisturbed, 0);
    if (HasFailure()) return;
    outcomes[sharded] = outcome_of(run(), 40);
    fs::remove_all(run());
  }
  std::mt19937 random(7);
  for (int64_t i = 0; i < faults(); ++i) {
    const bool kill = i % 2 == 0, sharded = (i / 4) % 2 == 1;
    const int64_t victim = (i / 2) % kWorld;
    const std::vector<std::string>& flags = both[sharded];
    fs::remove_all(run());
    {
      auto ranks = start(kWorld, flags);
      ASSERT_TRUE(ranks[0]->wait_for(concat("step ", 1 + random() % 30, ":"))) << ranks[0]->output();
      ranks[static_cast<size_t>(victim)]->send(kill ? SIGKILL : SIGSTOP);
      const auto timeout = std::chrono::seconds(kill ? 0 : 4);
      const double seconds = expect_ends(ranks, victim, kEndWithin + timeout);
      const std::string output = ranks[static_cast<size_t>(1 - victim)]->output();
      expect_in(output, concat("rank ", 1 - victim, " on "));
      expect_in(output, concat("rank ", victim, " on "));
      expect_in(output, " failed: ");
      if (HasFailure()) {
        ADD_FAILURE() << (kill ? "kill" : "stop") << " of rank " << victim << " after " << seconds << " s:\n" << output;
        return;
      }
      if (!kill) ranks[static_cast<size_t>(victim)]->send(SIGKILL);
    }
    auto again = start(kWorld, flags);
    expect_all(again, 0);
    EXPECT_EQ(outcome_of(run(), 40), outcomes[sharded]) << (kill ? "kill" : "stop") << " of rank " << victim;
    if (HasFailure()) return;
  }
}

// What differs between the processes is found at the start, named, and ends all of them.
TEST_F(Processes, EndWhenOneIsAtOddsWithTheOthers) {
  fs::copy_file(data() / "train.tsv", data() / "other.tsv");
  std::ofstream(data() / "other.tsv", std::ios::app) << "train.tar\t0.png\ta red blue\n";
  struct Difference {
    std::vector<std::string> own;
    const char* says;
  };
  const Difference differences[] = {
      {{"--lr", "0.5"}, "trainer.lr: 0.001 on rank 0, 0.5 here"},
      {{"--num-gradient-accumulations", "2"}, "trainer.num_gradient_accumulations: 1 on rank 0, 2 here"},
      {{"--joint-width", "32"}, "text.joint_width: 16 on rank 0, 32 here"},
      {{"--file-list", (data() / "nothing.tar").string()}, "nothing.tar"},
      {{"--world-size", "3", "--rank", "1"}, "WORLD_SIZE is 2"},
  };
  for (const Difference& difference : differences) {
    fs::remove_all(run());
    const bool before_meeting = std::string(difference.says).find("WORLD_SIZE") == 0;
    auto ranks = start(2, {"--init-timeout", "5"}, {{1, difference.own}});
    expect_ends(ranks, -1, kEndWithin);
    expect_in(ranks[1]->output(), difference.says);
    expect_in(ranks[0]->output(), before_meeting ? "rank 1 is not there after 5 s" : difference.says);
    if (HasFailure()) return;
  }
}

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Prompts are divided, and the folder is that of one process, byte for byte.
TEST_F(Processes, SampleTogether) {
  Child trained(command(run()), log(0), 1);
  ASSERT_EQ(trained.wait(), 0) << trained.output();
  const auto sample = [&](const fs::path& folder) {
    std::vector<std::string> words = {MDM_SAMPLE,
                                      "--checkpoint",
                                      (run() / "vis_model_000012.pth").string(),
                                      "--num-samples",
                                      "5",
                                      "--batch-size",
                                      "2",
                                      "--num-inference-steps",
                                      "3",
                                      "--threads",
                                      "1",
                                      "--seed",
                                      "4",
                                      "--sample-dir",
                                      folder.string()};
    for (int i = 0; i < 3; ++i) words.insert(words.end(), {"--prompt", small_job_caption(i)});
    return words;
  };
  const fs::path one = folder_.path() / "drawn";
  Child alone(sample(one), log(0), 1);
  ASSERT_EQ(alone.wait(), 0) << alone.output();
  const std::vector<std::string> expected = files_in(one);
  EXPECT_EQ(expected.size(), 15U + 3U);  // with grid.png, index.html, lst.json
  for (const int64_t world : {2, 9}) {   // 8 batches: the ninth process has none
    const fs::path many = folder_.path() / concat("drawn_", world);
    const int64_t port = distributed_test::free_port();
    std::vector<std::unique_ptr<Child>> ranks;
    for (int64_t rank = 0; rank < world; ++rank) {
      ranks.push_back(std::make_unique<Child>(sample(many), log(rank), 1, as_torchrun(rank, world, port)));
    }
    expect_all(ranks, 0);
    ASSERT_EQ(files_in(many), expected);
    for (const std::string& file : expected) {
      EXPECT_EQ(read_text_file(many / file), read_text_file(one / file)) << file;
    }
  }
}

TEST_F(Processes, ValidateTogether) {
  const std::vector<std::string> flags = {"--validation-file-list", (data() / "train.tar").string(),
                                          "--validation-freq",      "6",
                                          "--validation-samples",   "20"};
  const fs::path one = folder_.path() / "one";
  Child child(command(one, flags), log(0), 1);
  ASSERT_EQ(child.wait(), 0) << child.output();
  auto ranks = start(2, flags);
  expect_all(ranks, 0);
  if (HasFailure()) return;
  const auto losses_in = [](const std::string& output) {
    std::vector<double> losses;
    const std::string mark = "validation loss ";
    for (size_t at = output.find(mark); at != std::string::npos; at = output.find(mark, at + 1)) {
      losses.push_back(std::stod(output.substr(at + mark.size())));
    }
    return losses;
  };
  const auto expected = losses_in(child.output()), found = losses_in(ranks[0]->output());
  ASSERT_EQ(expected.size(), 2U) << child.output();
  ASSERT_EQ(found.size(), 2U) << ranks[0]->output();
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(found[i], expected[i], 2e-5 * expected[i]);
}

}  // namespace
}  // namespace mdm::training_test
