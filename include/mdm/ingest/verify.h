// Whether a data set is sound: every archive, member, picture and caption is looked at, and all that is wrong is told
// in one run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "mdm/ingest/survey.h"

namespace mdm {

struct VerifySettings {
  SurveySettings survey;
  /// All faults, one a line: TSV with the columns kind, archive, file, what; JSON objects where the name ends in .jsonl
  /// or .json. Control characters and bytes that are no UTF-8 are escaped. Empty: none is written.
  std::filesystem::path report;
  size_t shown = 200;  ///< how many of the faults VerifyResult keeps
  /// The lists are all there is of a data set: they name every picture of their archives, and no key stands in two
  /// archives. Always so for folders that `scrape` wrote; there train.tsv and validation.tsv must divide the samples.
  bool whole = false;
};

struct VerifyResult {
  uint64_t archives = 0;           ///< that lists name
  uint64_t readable_archives = 0;  ///< of these
  uint64_t archive_bytes = 0;
  uint64_t samples = 0;                    ///< that lists name, or archives hold
  uint64_t sound = 0;                      ///< of these: nothing is wrong with them
  uint64_t cut = 0;                        ///< captions with more tokens than SurveySettings::most_tokens
  std::map<std::string, uint64_t> faults;  ///< by kind
  std::vector<Fault> first;                ///< the first ones, in the order of lists and archives
  bool stopped = false;                    ///< by SurveySettings::stop: the rest was not looked at

  uint64_t all_faults() const;
};

/// Reads every archive to its end, decodes every picture (JPEGs at an eighth of their size: the compressed data are
/// read whole), and checks captions, digests and names. Memory: the texts of the lists, the index of a few archives,
/// 16 bytes a sample for what must be unique. Error when the report or the sheet can't be written.
///
/// A digest is the JSON's `file_sha256`; else its `sha256`, unless it also tells an `original_width`: img2dataset's
/// is of the file that came, before it was made smaller.
VerifyResult verify_dataset(const VerifySettings& settings);

}  // namespace mdm
