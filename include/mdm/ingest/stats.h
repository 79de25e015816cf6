// What a data set consists of: numbers, sizes, shapes, captions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "mdm/ingest/survey.h"

namespace mdm {

/// Of whole numbers. Percentiles are values that occur: the smallest that so many percent of the numbers don't exceed.
struct Distribution {
  uint64_t count = 0;
  int64_t least = 0;
  int64_t most = 0;
  double mean = 0;
  std::map<int, int64_t> percentiles;  ///< 1, 5, 25, 50, 75, 95, 99; empty when there are no numbers
};

struct ShardStats {
  std::string archive;
  uint64_t bytes = 0;  ///< of the archive
  uint64_t samples = 0;
  uint64_t image_bytes = 0;
  uint64_t unreadable = 0;    ///< pictures without a readable header
  int64_t median_side = 0;    ///< smaller side in pixels
  double caption_points = 0;  ///< code points of a caption, mean
};

struct StatsResult {
  uint64_t archives = 0;  ///< that could be read
  uint64_t archive_bytes = 0;
  uint64_t samples = 0;
  uint64_t unreadable = 0;  ///< pictures without a readable header; they have no size below
  std::map<std::string, uint64_t> formats;
  Distribution image_bytes;
  Distribution smaller_side;  ///< pixels
  Distribution larger_side;
  Distribution aspect;                      ///< width / height, in thousandths
  std::map<int64_t, uint64_t> sides;        ///< smaller sides: pictures in [key, 2 * key), keys are powers of two
  std::map<int64_t, uint64_t> below;        ///< pictures with a smaller side below 64, 256, 1024
  uint64_t tall = 0, square = 0, wide = 0;  ///< width / height below 4/5, between, above 5/4
  Distribution caption_bytes;
  Distribution caption_points;     ///< code points; a byte that is not UTF-8 counts as one
  Distribution tokens;             ///< none without a tokenizer
  uint64_t cut = 0;                ///< captions with more tokens than SurveySettings::most_tokens
  uint64_t empty_captions = 0;     ///< of white space alone
  uint64_t repeated_captions = 0;  ///< that stood before with another picture
  std::vector<ShardStats> shards;
  std::map<std::string, uint64_t> faults;  ///< what was seen to be wrong on the way, by kind; `verify` looks closer
  bool stopped = false;
};

/// Reads the headers of pictures, not their pixels. Memory: as verify_dataset.
StatsResult dataset_stats(const SurveySettings& settings);

/// A table for people, lines of at most 120 columns.
std::string stats_text(const StatsResult& stats, size_t most_shards = 40);
/// All of it as a JSON object.
std::string stats_json(const StatsResult& stats);

}  // namespace mdm
