// Batches for training, made ahead of time by several threads and handed out in the order of the plan.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
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
  std::map<std::string, uint64_t> holes;  ///< by kind, see Loader
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
  bool embeddings = false;       ///< Batch::embeddings from the data set's .npy files
  int64_t embedding_width = -1;  ///< that every embedding must have (the text's width in the model); -1: any
  /// Whether a caption can be used (a label that is in the list of classes). Called by several threads at a time.
  /// Empty: all can.
  std::function<bool(std::string_view caption)> knows_caption;
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
/// and embeddings (but always two batches). Threads: num_readers, but not more than the machine has or the system
/// gives; each uses one OpenMP thread. What it hands out depends on neither.
///
/// Random choices (crop and flip kCrop, caption dropout kCaptionDropout) are addressed by (seed, number of the
/// sample), so that a sample of the plan looks the same whenever it is made. With ReaderConfig::compat kMlx nothing is
/// random, and pictures of fewer than 3 channels leave the others 0.
///
/// A sample that can't be used is a hole: weight 0, gray pixels (127), the empty caption. Holes are counted by kind
/// when they are handed out, and the first 20 logged: "label" (knows_caption refuses it), "file" (the archive can't be
/// read, was cut, or its member is too large), "image" (no picture), "embedding" (no matrix, of another width, or with
/// values that are not finite). Where the caption is dropped, neither it nor its embedding is looked at. When more than
/// max_bad_fraction of the last 10,000 samples are holes, next() throws DataError; while fewer were handed out, from
/// the 100th on, chance is allowed for by three standard deviations: more than f n + 3 sqrt(f n) holes of n.
class Loader {
 public:
  /// ConfigError when image_size is not set, smaller_side_size is below it, or slices leave the plan's batch; Error
  /// when the system gives not even one thread.
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
