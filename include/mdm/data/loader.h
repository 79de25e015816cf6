// Batches for training, made ahead of time by several threads and handed out in the order of the plan.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mdm/config/model_config.h"
#include "mdm/config/reader_config.h"
#include "mdm/data/batch.h"
#include "mdm/data/batch_plan.h"
#include "mdm/data/captions.h"
#include "mdm/data/dataset.h"

namespace mdm {

/// What a loader has handed out so far; save it with a checkpoint and give it to the loader that goes on.
struct LoaderCounters {
  uint64_t samples = 0;                   ///< rows, holes among them
  std::map<std::string, uint64_t> holes;  ///< by kind: "file" (unreadable or cut archive), "image", "embedding"
  std::vector<uint64_t> recent_holes;     ///< positions (in `samples`) of the holes among the last 10,000 rows
  uint64_t dropped_captions = 0;          ///< replaced by the empty one (caption_dropout)

  uint64_t all_holes() const;
  /// One line of text, and back (DataError when it is not such a line).
  std::string save() const;
  static LoaderCounters restore(const std::string& text);
};

/// Rows [first_row, first_row + rows) of each step's batch.
struct LoaderSlice {
  int64_t first_row = 0;
  int64_t rows = 0;
};

struct LoaderOptions {
  ReaderConfig reader;
  uint64_t seed = 0;
  uint64_t start_step = 0;
  /// The parts of a step's batch that this process wants (one a micro-step), in the order in which next() gives
  /// them; empty: the whole batch in one.
  std::vector<LoaderSlice> slices;
  /// Values for Batch::micros, as the model's config names them. A column that no row has is left out (the model then
  /// takes its default); in others, rows without a number and holes get the item's default. "scale" is always there.
  std::vector<MicroCondition> micros;
  bool embeddings = false;  ///< Batch::embeddings from the data set's .npy files
};

/// The data set, its captions and the plan of a run, made from one list.
struct TrainingData {
  std::shared_ptr<const Dataset> dataset;
  std::shared_ptr<const CaptionTable> captions;
  std::shared_ptr<const BatchPlan> plan;
};

/// Opens the list (Dataset::open), tokenizes the captions (CaptionTable::make; `tokenizer` may be null) and makes the
/// plan for batches of `rows`. `options.mlx` and `options.max_bad_fraction` are taken from `reader`. Logs what was
/// found and left out.
TrainingData open_training_data(const std::string& list, const ReaderConfig& reader, const Tokenizer* tokenizer,
                                uint64_t seed, int64_t rows, DatasetOptions options = {});

/// Reads ahead from construction on: at most ReaderConfig::reader_buffer_size batches, and at most 256 MiB of pixels
/// (but always two batches). Threads: num_readers, but not more than the machine has; each uses one OpenMP thread.
/// What it hands out depends on neither.
///
/// Random choices (crop and flip kCrop, caption dropout kCaptionDropout) are addressed by (seed, number of the
/// sample), so that a sample of the plan looks the same whenever it is made. With ReaderConfig::compat kMlx nothing is
/// random, and pictures of fewer than 3 channels leave the others 0.
///
/// A sample that can't be read is a hole: weight 0, gray pixels (127), the empty caption. Holes are counted by kind
/// when they are handed out, and the first 20 logged. When more than max_bad_fraction of the last 10,000 samples are
/// holes, next() throws DataError; while fewer were handed out, from the 100th on, chance is allowed for by three
/// standard deviations: more than f n + 3 sqrt(f n) holes of n.
class Loader {
 public:
  /// ConfigError when image_size is not set, smaller_side_size is below it, or slices leave the plan's batch.
  Loader(TrainingData data, LoaderOptions options, LoaderCounters counters = {});
  /// Ends the threads after the samples that they are at.
  ~Loader();

  /// The next batch; waits for it. What a worker threw (out of memory) is thrown here; the loader can't be used then.
  Batch next();

  const LoaderCounters& counters() const;
  double wait_seconds() const;  ///< that next() has waited in all

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
