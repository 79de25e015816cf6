// The data and text rooms as the trainer wants them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mdm/config/config.h"
#include "mdm/data/loader.h"
#include "mdm/text/text_encoder.h"
#include "mdm/training/sources.h"

namespace mdm {

/// A data set's batches in the order of the plan, cut into the micro-steps of this process.
class LoaderBatches : public BatchSource {
 public:
  /// `allow_change`: restore() takes a checkpoint of other data, too.
  LoaderBatches(TrainingData data, LoaderOptions options, bool allow_change = false);
  Batch next() override;
  void seek(uint64_t step) override;
  /// Counters, and what tells this data from other data: the number of samples that are used, and a digest of their
  /// names and captions.
  std::string state_json() const override;
  /// ConfigError when the data is not that of the state: the same step would then mean other samples.
  void restore(const std::string& state_json) override;
  /// Back to the first step with fresh counters, and without reading ahead until the next next().
  void rewind();

  /// Of what was handed out.
  const LoaderCounters& counters() const;

 private:
  TrainingData data_;
  LoaderOptions options_;
  bool allow_change_;
  std::string digest_;
  LoaderCounters counters_;         // of a loader that is still to be made
  std::unique_ptr<Loader> loader_;  // made when the first batch is wanted
};

/// Captions (or the embeddings that the data set has) through an encoder, which outlives this.
class EncoderText : public TextSource {
 public:
  EncoderText(TextEncoder& encoder, const Config& config);
  int64_t width() const override { return encoder_.width(); }
  TextEmbedding embed(const Batch& batch) override;
  std::vector<NamedTensor> trained() const override;
  std::string vocabulary() const override;
  /// How the rows of a batch are padded: to its bucket, else to max_token_length, else as TextConfig::pad says.
  PadPolicy padding(int64_t token_length) const;

 private:
  TextEncoder& encoder_;
  PadPolicy pad_;
};

/// Samples of one process and micro-step: batch_size, or its share of global_batch_size; ConfigError when that can't be
/// divided by the processes and accumulations.
int64_t process_batch_size(const TrainerConfig& trainer, int64_t processes);

/// The rows of each micro-step of this process: those of all processes stand side by side within a micro-step.
std::vector<LoaderSlice> micro_steps(const TrainerConfig& trainer, int64_t rank, int64_t processes);

/// Opens a list for training, with URLs through the cache. `tokenizer` counts tokens; nullptr: captions are no token
/// lists. `rows`: of a step's batch, all micro-steps and processes together. `stop` (may be null) ends downloads.
/// DataError, ConfigError, NetError.
TrainingData open_data(const std::string& list, const Config& config, const Tokenizer* tokenizer, uint64_t seed,
                       int64_t rows, const std::atomic<bool>* stop = nullptr);

/// What a loader needs to know from the config. `encoder`: of the text; captions and embeddings that it can't take
/// become broken samples.
LoaderOptions loader_options(const Config& config, uint64_t seed, const TextEncoder* encoder);

}  // namespace mdm
