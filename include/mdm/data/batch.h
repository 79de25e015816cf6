// What the loader hands to the trainer: one slice of a training batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace mdm {

/// Rows [first_row, first_row + size()) of the batch that all processes and micro-steps of a training step make
/// together. A sample that could not be read is a hole: it keeps its row, with weight 0, a grey image and the
/// empty caption, so that every batch has the same shape.
struct Batch {
  uint64_t step = 0;  ///< training step, from 0
  int64_t first_row = 0;
  int64_t total_rows = 0;             ///< of the whole step
  at::Tensor images;                  ///< (B, S, S, 3) uint8, S = ReaderConfig::image_size
  std::vector<std::string> captions;  ///< UTF-8; empty where the caption was dropped out
  at::Tensor weights;                 ///< (B) float32: 1, or 0 for a hole
  /// The numbers that the samples have in the endless sequence of epochs; they address random numbers.
  std::vector<uint64_t> samples;
  std::map<std::string, at::Tensor> micros;  ///< (B) float32 each: `scale` (the image's smaller side in pixels before
                                             ///< resizing), and numeric columns that micro_conditioning names
  int64_t token_length = 0;  ///< positions that every row attends to (a bucket); 0: as TextConfig::pad says
  /// kPrecomputed with embeddings beside the images: (L_i, D) each; empty otherwise. A dropped caption has the
  /// embedding of the empty caption (undefined tensor: the text encoder's).
  std::vector<at::Tensor> embeddings;

  int64_t size() const { return images.size(0); }
};

}  // namespace mdm
