// The encoder of T5 v1.1 and flan-T5 (Raffel et al. 2020, arXiv 1910.10683; GLU variants: arXiv
// 2002.05202), for inference. Layout of files and arithmetic as in Hugging Face's transformers
// (models/t5/modeling_t5.py).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "mdm/text/text_model.h"

namespace mdm {

/// The fields of a T5's config.json that shape the encoder.
struct T5Config {
  int64_t d_model = 0;  ///< width of the output
  int64_t d_kv = 0;     ///< width of a head; heads * d_kv need not be d_model
  int64_t d_ff = 0;     ///< inner width of the feed-forward part
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t vocab_size = 0;  ///< rows of the embedding
  int64_t relative_attention_num_buckets = 32;
  int64_t relative_attention_max_distance = 128;
  double layer_norm_epsilon = 1e-6;
  int64_t pad_token_id = 0;

  /// Throws ConfigError that names file and field: not a T5, not gated-gelu (T5 v1.0 is "relu"), a field
  /// that is missing, of the wrong type or out of range.
  static T5Config read(const std::filesystem::path& config_json);
};

/// Which of the learned biases a key at `distance` = key position - query position gets: half of the
/// buckets are for keys to the right; of each half, the first half are single distances and the rest
/// grow with the logarithm up to `max_distance`.
int64_t t5_relative_bucket(int64_t distance, int64_t num_buckets, int64_t max_distance);

/// What a forward leaves behind for tests.
struct T5Trace {
  std::vector<at::Tensor> hidden;  ///< (B, L, D) float: embeddings, then each block's output, the last one normed
  at::Tensor position_bias;        ///< (H, L, L) float, without the mask
};

/// The weights of an encoder and its forward. Immutable: may be shared between threads. Weights whose
/// dtype and device fit are used where the file is mapped; others are converted layer by layer, so that
/// loading needs about the memory of the weights in `dtype`.
class T5Encoder {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;  ///< of the matrix products: kFloat or kBFloat16; the rest is float
    at::Device device = at::kCPU;
  };

  /// CheckpointError lists all keys that are missing, unexpected or of the wrong shape; ConfigError for
  /// the config or a dtype other than the two.
  static T5Encoder load(const TextModelFiles& files, const Options& options);
  static T5Encoder load(const TextModelFiles& files) { return load(files, Options()); }

  T5Encoder(T5Encoder&&) noexcept;
  T5Encoder& operator=(T5Encoder&&) noexcept;
  ~T5Encoder();

  /// ids (B, L) int64 on the CPU or the encoder's device; mask (B, L), 1 for tokens and 0 for padding, or
  /// undefined for none. Returns the last hidden state, (B, L, D) float on the encoder's device; rows of
  /// padding hold values without meaning. ConfigError when an id has no row in the embedding.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& mask, T5Trace* trace = nullptr) const;

  const T5Config& config() const;
  at::Device device() const;
  int64_t width() const { return config().d_model; }
  /// Bytes that the weights occupy beyond the mapped file.
  int64_t resident_bytes() const;

 private:
  struct Impl;
  explicit T5Encoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
