// The blocks that the towers of CLIP and DINOv2 are made of: pre-norm attention and a feed-forward part.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "evaluation/network_weights.h"

namespace mdm::evaluation {

enum class Activation {
  kGelu,       // by the error function
  kQuickGelu,  // x sigmoid(1.702 x)
};
// "gelu" or "quick_gelu"; ConfigError that names `where` for others.
Activation parse_activation(const std::string& name, const std::string& where);

struct TransformerShape {
  int64_t width = 0, heads = 0, layers = 0, inner = 0;
  double epsilon = 1e-5;
  Activation activation = Activation::kGelu;
  bool gated = false;      // SwiGLU: silu of one half of the inner features times the other
  bool scaled = false;     // each part's result is scaled by channel
  bool query_bias = true;  // queries, keys and values have one
};

// How a family of files names the parameters of a block.
struct TransformerNames {
  std::string block;  // with the number behind it: "vision_model.encoder.layers."
  const char *norm1, *norm2, *query, *key, *value, *output, *up, *down, *scale1, *scale2;
};
extern const TransformerNames kClipNames, kDinoNames;  // without `block`

class Transformer {
 public:
  // Names all parameters; prepare() when they are filled.
  void declare(NetworkWeights& weights, const TransformerShape& shape, const TransformerNames& names);
  void prepare();
  // (B, L, width) -> the same. `causal`: a position sees those before it and itself.
  at::Tensor forward(at::Tensor x, bool causal) const;

 private:
  struct Pair {
    at::Tensor weight, bias;
  };
  struct Block {
    Pair norm1, norm2, query, key, value, joined, output, up, down;
    at::Tensor scale1, scale2;
  };
  at::Tensor attention(const Block& block, const at::Tensor& x, bool causal) const;
  at::Tensor feed_forward(const Block& block, const at::Tensor& x) const;

  TransformerShape shape_;
  std::vector<Block> blocks_;
};

// Layer norm over the last dimension.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon);

}  // namespace mdm::evaluation
