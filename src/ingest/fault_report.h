// What is wrong, counted and written as it is found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mdm/core/files.h"
#include "mdm/ingest/survey.h"

namespace mdm::ingest {

/// Counts by kind, keeps the first ones and writes all into a file that appears with finish().
class FaultReport {
 public:
  /// `file`: see VerifySettings::report. Error when it can't be written.
  FaultReport(const std::filesystem::path& file, size_t kept);

  void add(const Fault& fault);
  void finish();

  uint64_t count() const { return count_; }
  const std::map<std::string, uint64_t>& kinds() const { return kinds_; }
  const std::vector<Fault>& first() const { return first_; }

 private:
  size_t kept_;
  bool json_ = false;
  std::unique_ptr<AtomicFile> file_;
  std::string waiting_;  // to be written in one go
  uint64_t count_ = 0;
  std::map<std::string, uint64_t> kinds_;
  std::vector<Fault> first_;
};

/// "ARCHIVE: FILE: what", safe for a terminal.
std::string shown_fault(const Fault& fault);

}  // namespace mdm::ingest
