// A training that is killed and stopped at any moment ends in the same bits as one that isn't. MDM_KILLS sets the
// number of kills (15; scripts/soak.sh asks for 200).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "training/support.h"

namespace mdm::training_test {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration;
using std::chrono::steady_clock;

constexpr int kSteps = 24, kSaveFreq = 3;

// A child process whose output goes to a file.
class Child {
 public:
  Child(const std::vector<std::string>& arguments, fs::path output) : output_(std::move(output)) {
    std::vector<char*> pointers;
    for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
    pointers.push_back(nullptr);
    fs::remove(output_);  // what an earlier child has written must not be taken for this one's
    child_ = ::fork();
    if (child_ != 0) return;
    const int file = ::open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ::dup2(file, 1);
    ::dup2(file, 2);
    ::setenv("OMP_NUM_THREADS", "1", 1);
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  ~Child() {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      wait();
    }
  }
  void send(int signal) const { ::kill(child_, signal); }
  /// Exit status, or 128 + signal.
  int wait() {
    int status = 0;
    ::waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  bool running() {
    int status = 0;
    if (child_ <= 0 || ::waitpid(child_, &status, WNOHANG) != child_) return child_ > 0;
    child_ = -1;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return false;
  }
  int status() const { return status_; }
  std::string output() const {
    std::ostringstream text;
    text << std::ifstream(output_).rdbuf();
    return text.str();
  }
  /// Waits until the output holds `text`; false when the process ended without.
  bool wait_for(const std::string& text) {
    while (output().find(text) == std::string::npos) {
      if (!running()) return output().find(text) != std::string::npos;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

 private:
  fs::path output_;
  pid_t child_ = -1;
  int status_ = -1;
};

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

// F1
TEST_F(Interruption, KillsAtRandomMomentsChangeNothing) {
  const auto start = steady_clock::now();
  const std::string wanted = expected();
  ASSERT_EQ(wanted.size(), 64U);
  const double whole = duration<double>(steady_clock::now() - start).count();
  std::mt19937 random(1);
  int64_t done = 0, rounds = 0;
  while (done < kills()) {
    const fs::path run = folder_.path() / ("run" + std::to_string(rounds++));
    for (;;) {
      Child child(command(run), log());
      const double until = std::uniform_real_distribution<double>(0, 1.1 * whole)(random);
      const auto began = steady_clock::now();
      while (child.running() && duration<double>(steady_clock::now() - began).count() < until) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (!child.running()) {
        ASSERT_EQ(child.status(), 0) << child.output();
        ASSERT_EQ(digest_in(child.output()), wanted) << "after " << done << " kills";
        break;
      }
      child.send(SIGKILL);
      const int code = child.wait();
      if (code == 0) {  // it has ended between the look at it and the kill
        ASSERT_EQ(digest_in(child.output()), wanted) << "after " << done << " kills";
        break;
      }
      ASSERT_EQ(code, 128 + SIGKILL) << child.output();
      ++done;
    }
    fs::remove_all(run);
  }
}

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

// F14: one seed, one number of threads, one result.
TEST_F(Interruption, TwoProcessesGiveTheSameBits) {
  EXPECT_EQ(finish(folder_.path() / "a"), finish(folder_.path() / "b"));
}

}  // namespace
}  // namespace mdm::training_test
