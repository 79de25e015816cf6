// A training in a process of its own, and what it leaves.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace mdm::training_test {

/// A child process whose output goes to a file; killed when the object ends.
class Child {
 public:
  /// `environment`: variables beside those of the test.
  Child(const std::vector<std::string>& arguments, std::filesystem::path output, int threads = 1,
        const std::map<std::string, std::string>& environment = {});
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void send(int signal) const;
  /// Exit status, or 128 + signal.
  int wait();
  bool running();
  /// Of a process that running() has found ended: as wait().
  int status() const { return status_; }
  std::string output() const;
  /// Waits until the output holds `text`; false when the process ended without.
  bool wait_for(const std::string& text);
  pid_t process() const { return child_; }

 private:
  std::filesystem::path output_;
  pid_t child_ = -1;
  int status_ = -1;
};

std::filesystem::path checkpoint_of(const std::filesystem::path& run, int64_t step);

/// All that counts at the end of a run: weights, averages and moments by their digests, and the counters.
std::map<std::string, std::string> outcome_of(const std::filesystem::path& run, int64_t step);

}  // namespace mdm::training_test
