// The data and text rooms as the trainer wants them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mdm/config/config.h"
#include "mdm/data/loader.h"
#include "mdm/text/text_encoder.h"
#include "mdm/training/sources.h"

namespace mdm {

// A data set's batches in the order of the plan, cut into the micro-steps of this process.
class LoaderBatches : public BatchSource {
 public:
  LoaderBatches(TrainingData data, LoaderOptions options);
  Batch next() override;
  void seek(uint64_t step) override;
  std::string state_json() const override;
  void restore(const std::string& state_json) override;

 private:
  TrainingData data_;
  LoaderOptions options_;
  LoaderCounters counters_;         // of a loader that is still to be made
  std::unique_ptr<Loader> loader_;  // made when the first batch is wanted
};

// Captions through an encoder.
class EncoderText : public TextSource {
 public:
  EncoderText(TextEncoder& encoder, const Config& config);
  int64_t width() const override { return encoder_.width(); }
  TextEmbedding embed(const Batch& batch) override;
  std::vector<NamedTensor> trained() const override;
  // How the rows of a batch are padded: to its bucket, else to max_token_length, else as TextConfig::pad says.
  PadPolicy padding(int64_t token_length) const;

 private:
  TextEncoder& encoder_;
  PadPolicy pad_;
};

// The rows of each micro-step of this process: those of all processes stand side by side within a micro-step.
std::vector<LoaderSlice> micro_steps(const TrainerConfig& trainer, int64_t rank, int64_t processes);

// Opens a list for training, with URLs through the cache.
TrainingData open_data(const std::string& list, const Config& config, const Tokenizer* tokenizer, uint64_t seed,
                       int64_t rows, bool embeddings);

LoaderOptions loader_options(const Config& config, uint64_t seed, bool embeddings);

}  // namespace mdm
