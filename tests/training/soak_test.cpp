// A long training with stops and kills at random moments: the same bits at the end, and neither memory nor open files
// grow. MDM_SOAK_STEPS: how many steps (scripts/soak.sh says 2000); skipped without.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>

#include "training/child.h"
#include "training/small_job.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

namespace fs = std::filesystem;

#ifdef MDM_TRAIN_PARALLEL

// What a process holds now.
struct Holdings {
  int64_t resident_kib = 0;
  int64_t files = 0;
};

Holdings holdings_of(pid_t process) {
  Holdings out;
  const fs::path folder = fs::path("/proc") / std::to_string(process);
  std::ifstream status(folder / "status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) out.resident_kib = std::atoll(line.c_str() + 6);
  }
  std::error_code gone;
  for (fs::directory_iterator entry(folder / "fd", gone), end; !gone && entry != end; entry.increment(gone))
    ++out.files;
  return out;
}

class Soak : public ::testing::Test {
 protected:
  std::vector<std::string> command(const fs::path& run, int64_t steps) const {
    const fs::path data = folder_.path() / "data";
    std::vector<std::string> words = small_job_command(MDM_TRAIN_PARALLEL, data, "flat.yaml", run);
    words.insert(words.end(), {"--num-training-steps", std::to_string(steps), "--save-freq", "50",
                               "--validation-file-list", (data / "train.tar").string(), "--validation-freq", "40",
                               "--sample-freq", "60", "--sample-steps", "3", "--threads", "1"});
    return words;
  }
  const TemporaryFolder folder_;
};

TEST_F(Soak, MemoryAndFilesStayAndTheEndIsTheSame) {
  const char* wanted = std::getenv("MDM_SOAK_STEPS");
  if (wanted == nullptr) GTEST_SKIP() << "MDM_SOAK_STEPS is not set";
  const int64_t steps = std::atoll(wanted);
  write_small_job(folder_.path() / "data");
  const fs::path whole = folder_.path() / "whole", parts = folder_.path() / "parts", log = folder_.path() / "log";
  std::vector<Holdings> seen;
  const auto began = std::chrono::steady_clock::now();
  {
    Child child(command(whole, steps), log);
    while (child.running()) {
      const Holdings now = holdings_of(child.process());
      if (now.resident_kib > 0) seen.push_back(now);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ASSERT_EQ(child.status(), 0) << child.output();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  // The largest of the second tenth (the first one fills caches) and of the last one.
  const auto most = [&](size_t tenth) {
    Holdings out;
    for (size_t i = seen.size() * tenth / 10; i < seen.size() * (tenth + 1) / 10; ++i) {
      out.resident_kib = std::max(out.resident_kib, seen[i].resident_kib);
      out.files = std::max(out.files, seen[i].files);
    }
    return out;
  };
  ASSERT_GE(seen.size(), 50U);
  const Holdings early = most(1), late = most(9);
  EXPECT_LE(late.resident_kib, early.resident_kib + 8 * 1024) << "of " << early.resident_kib << " KiB";
  EXPECT_LE(late.files, early.files);

  std::mt19937 random(1);
  int stops = 0, killed = 0;
  for (;;) {
    Child child(command(parts, steps), log);
    const auto start = std::chrono::steady_clock::now();
    const double until = std::uniform_real_distribution<double>(0, seconds / 8)(random);
    while (child.running() && std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    int code = child.status();
    if (child.running()) {
      const bool politely = random() % 2 == 0;
      child.send(politely ? SIGTERM : SIGKILL);
      code = child.wait();
      (politely ? stops : killed) += 1;
      // A signal before the program has set its handler ends it as any other program.
      ASSERT_TRUE(code == 0 || code == 75 || code == 128 + SIGKILL || code == 128 + SIGTERM) << child.output();
    }
    if (code == 0) break;
  }
  EXPECT_EQ(outcome_of(parts, steps), outcome_of(whole, steps));
  std::printf("%lld steps in %.0f s; resident KiB %lld early, %lld late; open files %lld, %lld; %d stops, %d kills\n",
              static_cast<long long>(steps), seconds, static_cast<long long>(early.resident_kib),
              static_cast<long long>(late.resident_kib), static_cast<long long>(early.files),
              static_cast<long long>(late.files), stops, killed);
}

#endif

}  // namespace
}  // namespace mdm::training_test
