// Which samples make which batch: a pure function of (seed, step), so that a run that stops at any step goes on
// with the very next batch, and any slice of a batch can be made alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mdm/config/reader_config.h"
#include "mdm/data/captions.h"

namespace mdm {

/// A permutation of 0 .. n-1 that is computed point by point: no table, no state. Swap-or-not shuffle (Hoang, Morris,
/// Rogaway 2012) over Philox, stream kShuffle; `epoch` and `layer` go into the address.
class KeyedPermutation {
 public:
  KeyedPermutation(uint64_t n, uint64_t seed, uint64_t epoch, uint32_t layer);
  uint64_t operator()(uint64_t i) const;

 private:
  uint64_t n_;
  std::vector<uint64_t> offsets_;  // of each round
  uint32_t key_[2];
};

/// A row of a batch.
struct PlannedSample {
  size_t sample = 0;    ///< in the data set
  uint64_t number = 0;  ///< in the endless sequence of epochs: unique, the address of its random numbers
};

/// The plan of an endless run.
///
/// Samples stand in buckets by their number of tokens (one bucket without ReaderConfig::token_buckets). A bucket's
/// epochs, each in an order of its own, are joined to one stream, and that is cut into batches; so every sample
/// comes exactly once in an epoch of its bucket, no batch is short, and a batch may reach over the end of an epoch.
/// The batches that begin in epoch e, of all buckets, are shuffled among each other and make the steps of epoch e.
/// Without shuffling: order of the data set, one bucket after the other.
///
/// number = epoch * samples() + place in that epoch's order (buckets one after the other).
class BatchPlan {
 public:
  /// `rows`: of the batch of a whole training step, all processes and micro-steps together, >= 1. ConfigError when no
  /// sample is kept.
  BatchPlan(const CaptionTable& captions, const ReaderConfig& reader, uint64_t seed, int64_t rows);

  uint64_t samples() const { return samples_; }  ///< of an epoch
  int64_t rows() const { return rows_; }

  /// What every row of the step's batch is padded to, in tokens; 0 without buckets.
  int64_t token_length(uint64_t step) const;
  /// Rows [first, first + count) of the step's batch. Error outside of [0, rows()].
  std::vector<PlannedSample> slice(uint64_t step, int64_t first, int64_t count) const;
  std::vector<PlannedSample> batch(uint64_t step) const { return slice(step, 0, rows_); }
  /// The epoch in which the step's batch begins.
  uint64_t epoch(uint64_t step) const;
  /// The first step of an epoch; first_step(n) steps make n epochs.
  uint64_t first_step(uint64_t epoch) const;

 private:
  struct Bucket {
    int64_t token_length = 0;
    std::vector<uint32_t> samples;
    uint64_t before = 0;  // samples of the buckets in front
  };
  struct Place {
    size_t bucket;
    uint64_t batch;  // of the bucket's stream
  };
  Place place(uint64_t step) const;
  uint64_t batches_before(const Bucket& bucket, uint64_t epoch) const;

  std::vector<Bucket> buckets_;
  uint64_t samples_ = 0;
  int64_t rows_;
  uint64_t seed_;
  bool shuffle_;
};

}  // namespace mdm
