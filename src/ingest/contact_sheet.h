// Random samples of a data set on one picture, with their captions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <queue>
#include <string>
#include <vector>

#include "ingest/walk.h"
#include "mdm/ingest/survey.h"

namespace mdm::ingest {

/// Chooses samples as they come by: those with the lowest random numbers, so that the choice is the same whatever the
/// threads, and every sample has the same chance without their number being known.
class ContactSheet {
 public:
  /// ConfigError when the settings are out of range.
  explicit ContactSheet(const ContactSheetSettings& settings);

  void offer(const WalkedArchive& archive);
  /// Reads the chosen pictures and writes the file. Nothing without a file's name or samples.
  void write();

 private:
  struct Choice {
    uint64_t lot = 0;
    size_t archive = 0, sample = 0;  // their order on the sheet
    std::filesystem::path path;      // of the archive
    uint64_t offset = 0, size = 0;   // of the picture; 0 bytes: there is none
    std::string file, caption;
    bool operator<(const Choice& other) const { return lot < other.lot; }
  };
  static Image cell_of(const Choice& choice);

  ContactSheetSettings settings_;
  std::priority_queue<Choice> chosen_;  // the highest lot in front
};

}  // namespace mdm::ingest
