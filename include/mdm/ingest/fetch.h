// Shards that others have made, from S3, HTTP servers and other folders, into a folder of this machine.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mdm/net/http_client.h"

namespace mdm {

struct FetchSettings {
  /// Each a shard TSV (columns tar, file, caption), an index TSV (column filename: shard TSVs and tars) or a tar: a
  /// path, or a URL file://, http(s):// or s3://. In paths and s3:// URLs a name may be a pattern, which stands for the
  /// TSVs among the files that it matches, or where there are none for the tars:
  /// - a glob: `*` any letters but '/', `?` one, `[a-z]` and `[!a-z]` one of these or not, `\` takes the next letter's
  ///   meaning away. In paths only the last part is one.
  /// - with `regex`, of s3:// the key: an ECMAScript regular expression that the whole key must match.
  /// Indexes are not expected among what a pattern matches: they are left out.
  std::vector<std::string> sources;
  bool regex = false;
  std::filesystem::path folder;  ///< of the output; made when it is not there
  bool tars = true;              ///< also the tars that TSVs name; else their `tar` becomes the URL
  int worker = 0, workers = 1;   ///< this process is one of so many that divide the files
  int parallel = 8;              ///< transfers at a time
  std::optional<uint64_t> seed;  ///< of another order of the files; none: as they are listed
  HttpOptions http;              ///< `cancel` and `on_bytes` are not used
};

struct FetchResult {
  uint64_t fetched = 0, kept = 0;   ///< files that came now; that were there already
  uint64_t bytes = 0;               ///< that came now
  uint64_t failed = 0;              ///< files (and lists that can't be used), each with a line in `failures`
  uint64_t shards = 0;              ///< rows of `index`
  uint64_t rows = 0, bad_rows = 0;  ///< of the TSVs that were written; those left out for their line or their tar
  std::filesystem::path index;      ///< empty: nothing could be written to it
  std::filesystem::path failures;   ///< TSV (url, cause); empty: none
  bool stopped = false;             ///< by `stop`: a later call goes on
};

/// Fetches what is not there yet, several files at a time, and goes on with what a call before began. In the folder:
/// tars under the last part of their URL (made a plain name, and a unique one), TSVs whose `tar` names these, and
/// index.tsv (index.W.tsv of several workers) for train_parallel. `.fetch` holds the original lists and what is known
/// of files: one that is complete is taken to be still the same unless a listing tells another size or ETag.
/// `progress`: shown on stderr. ConfigError, DataError (a source that can't be used), NetError (a listing), Error (disk
/// full, nothing can be reached any more).
FetchResult fetch_dataset(const FetchSettings& settings, const std::atomic<bool>& stop, bool progress = false);

/// Sources out of configs of the reference's form (mdm/config/download_config.h), several joined by ':'; ConfigError.
std::vector<std::string> fetch_config_sources(const std::string& configs, const std::string& subset);

}  // namespace mdm
