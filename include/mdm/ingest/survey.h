// What `verify` and `stats` have in common: which data sets they look at, how, and what they find to be wrong.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/text/tokenizer.h"

namespace mdm {

/// Something that is wrong. Texts come from files that anyone may have written: as they are there, any bytes.
struct Fault {
  /// Of lists: list (can't be read or names nothing), line (no record).
  /// Of archives: archive (can't be opened, is none, holds nothing), damage (its end can't be read), end_mark (has
  /// none), rest (data behind the end mark), replaced (members that later ones of the same name replace), skipped
  /// (members that are links, devices or sparse files), name (a member's, that would lead out of a folder or holds
  /// control characters), read (the disk gives no bytes).
  /// Of samples: member (is not there, or a text has no picture), picture (can't be decoded), caption (none, empty, not
  /// UTF-8), tokens (the caption has none), json (no object), digest (the picture is not the one that its JSON tells
  /// of), duplicate (named twice, two pictures with one key, an archive that is listed twice).
  /// Of data sets that are whole: unlisted (a picture that no list names), duplicate (a key in two archives), split (a
  /// sample in both parts or in none).
  std::string kind;
  std::string archive;  ///< or list, as it was named
  std::string file;     ///< the member, empty where it is all of the archive
  std::string what;
};

/// A sheet of random samples with their captions.
struct ContactSheetSettings {
  std::filesystem::path file;  ///< a PNG; empty: none
  int samples = 64;            ///< 1 to 1024
  uint64_t seed = 0;           ///< the same seed and data give the same picture
};

struct SurveyProgress {
  uint64_t bytes = 0;        ///< of archives, so far
  uint64_t total_bytes = 0;  ///< of all archives that are there
  uint64_t samples = 0;      ///< so far
  uint64_t faults = 0;       ///< so far
};

struct SurveySettings {
  /// Each as Dataset::open takes them: an index TSV, a shard TSV, a webdataset archive or a folder of these. Of a
  /// folder that has an index.tsv (one that `scrape` wrote) that is taken.
  std::vector<std::string> lists;
  /// As in DatasetOptions.
  std::function<std::filesystem::path(const std::string& url)> resolve_url;
  /// Counts the tokens of captions, as in training and without limits; null: they are not counted.
  std::shared_ptr<const Tokenizer> tokenizer;
  int64_t most_tokens = 128;  ///< captions with more are counted as cut
  int threads = 0;            ///< 0: as many as the machine has
  ContactSheetSettings sheet;
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const SurveyProgress&)> show;  ///< called by one thread at a time
};

/// The tokenizer of a vocabulary: T5's own for a SentencePiece model, else the reference's for a .vocab. DataError.
std::shared_ptr<const Tokenizer> open_vocabulary(const std::filesystem::path& file);

}  // namespace mdm
