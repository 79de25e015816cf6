// Writes a T5 encoder of random weights as a Hugging Face folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace mdm::text_test {

struct RandomT5 {
  int64_t d_model = 32, d_kv = 8, d_ff = 64, num_layers = 2, num_heads = 4, vocab_size = 400;
  std::string dtype = "F32";  ///< F32, F16 or BF16
  uint64_t seed = 1;
  double scale = 1;  ///< factor on all matrices but the embedding
};

/// config.json and model.safetensors in `folder`, which is made. Norms 1 +- 0.25, relative bias of
/// standard deviation 0.5, embeddings 1, the rest scaled by their fan-in, so that nothing is degenerate.
void write_random_t5(const std::filesystem::path& folder, const RandomT5& model);

}  // namespace mdm::text_test
