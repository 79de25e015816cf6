// What the text room hands to the models: a batch of encoded captions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace mdm {

/// Encoded captions, one row each.
struct TextEmbedding {
  at::Tensor lm_outputs;  ///< (B, L, D) float; rows of padding are zero
  at::Tensor lm_mask;     ///< (B, L) float, 1 for a token and 0 for padding
  /// How many positions of a row the model may look at, padding included; empty: all L.
  /// It belongs to the row and not to the batch: the shipped models attend to padding, so a picture
  /// would otherwise change with its neighbours.
  std::vector<int64_t> attended_lengths;

  int64_t batch() const { return lm_outputs.size(0); }
};

}  // namespace mdm
