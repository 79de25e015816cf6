// The tensors of a T5 encoder and how they come from files.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mdm/text/t5_encoder.h"

namespace mdm {

struct T5Block {
  at::Tensor attention_norm;     // (D) float
  at::Tensor query, key, value;  // (H * K, D)
  at::Tensor output;             // (D, H * K)
  at::Tensor feed_forward_norm;  // (D) float
  at::Tensor gate, up;           // (F, D): wi_0, which goes through GELU, and wi_1
  at::Tensor down;               // (D, F): wo
};

struct T5Weights {
  at::Tensor embedding;      // (V, D), in the smaller of the file's dtype and the compute dtype
  at::Tensor relative_bias;  // (buckets, H) float
  std::vector<T5Block> blocks;
  at::Tensor final_norm;  // (D) float
  int64_t resident_bytes = 0;
};

/// See T5Encoder::load.
T5Weights load_t5_weights(const TextModelFiles& files, const T5Config& config, const T5Encoder::Options& options);

}  // namespace mdm
