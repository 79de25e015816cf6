// Runs a program as a user does: arguments in; exit code, stdout and stderr out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace mdm::apps_test {

struct Outcome {
  int code = -1;   // exit code; -1: ended by a signal
  int signal = 0;  // that ended it
  bool timed_out = false;
  bool no_small_disk = false;  // RunOptions::small_disk is not possible here
  std::string out, err;
  long max_rss_kib = 0;  // the most memory that it had
};

struct RunOptions {
  std::filesystem::path folder;                    // working directory; empty: the test's own
  std::map<std::string, std::string> environment;  // on top of the test's own
  double seconds = 120;                            // after which it is killed
  uint64_t file_size_limit = 0;                    // RLIMIT_FSIZE in bytes; 0: none
  std::filesystem::path small_disk;                // folder where the program (alone) sees an empty small file system
  std::string out_file;                            // takes stdout instead of Outcome::out
  std::function<bool()> interrupt_when;            // a signal is sent once this says so
  int interrupt_by = 2;                            // which: SIGINT
  std::string disk_size = "32k";                   // of small_disk
};

Outcome run(const std::string& program, const std::vector<std::string>& arguments, const RunOptions& options = {});

}  // namespace mdm::apps_test
