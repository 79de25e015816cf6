// From a list of URLs with captions to tar shards: what is loaded, what is kept, and what lies in the folder.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "mdm/net/http_client.h"

namespace mdm {

/// How a list is written.
struct UrlListFormat {
  enum class Kind {
    kByName,  ///< by the file's ending: .csv, .jsonl (also .ndjson, .json), else kTsv
    kTsv,
    kCsv,
    kJsonLines,  ///< an object a line
  };
  Kind kind = Kind::kByName;
  std::string url_column = "url";
  std::string caption_column = "caption";
  /// A first line whose first field is a URL is no header: then columns are URL, caption, and a line is cut at the
  /// first separator alone (Conceptual 12M). Quotes mean something only in lists with a header.
  enum class Quotes { kByHeader, kYes, kNo } quotes = Quotes::kByHeader;
};

struct ScrapeSettings {
  std::filesystem::path urls;        ///< the list
  std::filesystem::path output_dir;  ///< made where it is missing
  UrlListFormat format;
  int64_t samples_per_shard = 10000;  ///< rows of the list that a shard is made of, whatever becomes of them

  /// Limits of a request; max_bytes is the largest picture file.
  HttpOptions http;
  int64_t transfers = 256;
  int64_t transfers_per_host = 8;
  bool heed_robots = true;  ///< leave out what X-Robots-Tag refuses (noai, noimageai, noindex, noimageindex, none)

  uint64_t max_pixels = uint64_t{1} << 25;  ///< larger pictures are left out
  int min_side = 1;                         ///< pictures whose smaller side has fewer pixels are left out
  uint64_t max_caption_bytes = uint64_t{1} << 16;
  int resize_side = 0;  ///< pictures with a larger smaller side are made this small, as JPEG; 0: files stay as they are
  int jpeg_quality = 95;           ///< of those, 1 to 100
  bool drop_duplicates = true;     ///< of files: the same bytes under another URL
  double validation_share = 0.01;  ///< of the pictures, [0, 1)
  uint64_t split_seed = 0;

  bool retry_failed =
      false;           ///< ask again for what failed in shards that are finished (not for what never can be right)
  int64_t worker = 0;  ///< which of `workers`: shard k is made by worker k % workers
  int64_t workers = 1;
  int threads = 0;  ///< that decode; 0: as many as the machine has
  /// So many failures of the network in a row, with no server answering anything, and the network counts as lost.
  int64_t lost_after = 400;       ///< 0: never
  double patience_seconds = 300;  ///< how long a lost network is waited for
  bool ignore_space = false;      ///< begin although the disk seems too small
  const std::atomic<bool>* stop = nullptr;
};

/// What became of the rows of a list. Each is counted once.
struct ScrapeCounts {
  uint64_t rows = 0;
  uint64_t pictures = 0;
  uint64_t picture_bytes = 0;
  /// By cause: url, caption, duplicate_url, duplicate_content, host, connection, timeout, tls, redirect,
  /// private_address, too_large, empty, status_NNN, robots, not_an_image, broken_image, too_many_pixels, too_small.
  std::map<std::string, uint64_t> failures;

  uint64_t all_failures() const;
  void add(const ScrapeCounts& other);
};

struct ScrapeProgress {
  ScrapeCounts counts;      ///< so far, with what earlier calls did
  uint64_t rows_to_do = 0;  ///< of this worker, in all
  uint64_t bytes_received = 0;
};

struct ScrapeResult {
  ScrapeCounts counts;                                ///< of this worker's shards that are finished
  uint64_t shards = 0;                                ///< finished
  bool stopped = false;                               ///< by ScrapeSettings::stop
  std::filesystem::path train_list, validation_list;  ///< empty where there is none
};

/// Loads every URL of the list and makes shards of what comes. In `output_dir`:
/// - `NNNNN.tar`: of rows [N * samples_per_shard, ...): KEY.jpg (.png, .webp, ... by content), KEY.txt (the caption),
///   KEY.json (url, caption, width, height, original_width, original_height, sha256 of the file that came, ...);
///   KEY is the row's number, 9 digits or more;
/// - `NNNNN.tsv`: a shard TSV (tar, file, caption, width, height, sha256), ordered by key;
/// - `NNNNN_failures.tsv`: key, url, caption, cause, detail; `NNNNN_stats.json`: counts, written last: a shard with it
///   is finished;
/// - `index.tsv`, `train.tsv`, `validation.tsv`: index TSVs of all finished shards, and of their two parts
///   `NNNNN_train.tsv` and `NNNNN_validation.tsv`, which are told apart by a hash of seed and key. Neither is empty
///   while there are two pictures and the share is not 0;
/// - `.NNNNN.tar.part` and `.NNNNN.journal`: shards that are not finished; `scrape.json`: list and settings.
///
/// May be stopped or killed at any moment; the next call goes on with what is missing. A call with another list, or
/// settings that would make other shards, is a ConfigError. When the network is lost, the disk is full or a file
/// can't be written it ends with an Error and loses nothing either: rows are accounted for only when something
/// answered. Two calls with the same worker at a time: Error.
///
/// Memory: about 130 MiB and 16 bytes a row of the list (more while a picture above 4 million pixels is decoded).
ScrapeResult scrape(const ScrapeSettings& settings, const std::function<void(const ScrapeProgress&)>& show = {});

}  // namespace mdm
