// What the trainer is fed with: batches and their text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"
#include "mdm/data/batch.h"
#include "mdm/text/text_embedding.h"

namespace mdm {

/// Batches in order: the micro-steps of a training step one after the other, then those of the next step.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// The next one; waits for it. Throws DataError when the data is unusable.
  virtual Batch next() = 0;
  /// Goes on with the first micro-step of `step`.
  virtual void seek(uint64_t step) = 0;
  /// What a checkpoint keeps beside the step (counters), as JSON, and back.
  virtual std::string state_json() const { return "{}"; }
  virtual void restore(const std::string& /*state_json*/) {}
};

/// Turns the captions of a batch into features.
class TextSource {
 public:
  virtual ~TextSource() = default;
  /// D of the features.
  virtual int64_t width() const = 0;
  /// One row a sample; can be differentiated where something in it is trained.
  virtual TextEmbedding embed(const Batch& batch) = 0;
  /// Parameters that are trained along with the model (float32), by their own names; files and the arena put
  /// "text_encoder." in front.
  virtual std::vector<NamedTensor> trained() const { return {}; }
  /// Of the tokenizer that belongs to these; kept in the .pth files. Empty: none.
  virtual std::string vocabulary() const { return {}; }
};

}  // namespace mdm
