#include "evaluation/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include "mdm/core/error.h"

namespace mdm::evaluation {

const TransformerNames kClipNames{"",
                                  "layer_norm1",
                                  "layer_norm2",
                                  "self_attn.q_proj",
                                  "self_attn.k_proj",
                                  "self_attn.v_proj",
                                  "self_attn.out_proj",
                                  "mlp.fc1",
                                  "mlp.fc2",
                                  "",
                                  ""};
const TransformerNames kDinoNames{"",
                                  "norm1",
                                  "norm2",
                                  "attention.attention.query",
                                  "attention.attention.key",
                                  "attention.attention.value",
                                  "attention.output.dense",
                                  "mlp.fc1",
                                  "mlp.fc2",
                                  "layer_scale1.lambda1",
                                  "layer_scale2.lambda1"};

Activation parse_activation(const std::string& name, const std::string& where) {
  if (name == "gelu") return Activation::kGelu;
  if (name == "quick_gelu") return Activation::kQuickGelu;
  fail<ConfigError>(where, ": 'hidden_act' is '", printable(name), "'; expected gelu or quick_gelu");
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon) {
  return at::layer_norm(x, {weight.size(0)}, weight, bias, epsilon);
}

void Transformer::declare(NetworkWeights& weights, const TransformerShape& shape, const TransformerNames& names) {
  shape_ = shape;
  for (int64_t i = 0; i < shape.layers; ++i) {
    const std::string start = concat(names.block, i, ".");
    const auto pair = [&](const std::string& name, std::vector<int64_t> size, bool bias = true) {
      Pair both;
      const int64_t out = size[0];
      both.weight = weights.add(start + name + ".weight", std::move(size));
      if (bias) both.bias = weights.add(start + name + ".bias", {out});
      return both;
    };
    const int64_t width = shape.width;
    Block block;
    block.norm1 = pair(names.norm1, {width});
    block.query = pair(names.query, {width, width}, shape.query_bias);
    block.key = pair(names.key, {width, width}, shape.query_bias);
    block.value = pair(names.value, {width, width}, shape.query_bias);
    block.output = pair(names.output, {width, width});
    block.norm2 = pair(names.norm2, {width});
    block.up = pair(names.up, {shape.gated ? 2 * shape.inner : shape.inner, width});
    block.down = pair(names.down, {width, shape.inner});
    if (shape.scaled) {
      block.scale1 = weights.add(start + names.scale1, {width});
      block.scale2 = weights.add(start + names.scale2, {width});
    }
    blocks_.push_back(std::move(block));
  }
}

void Transformer::prepare() {
  for (Block& block : blocks_) {  // one product instead of three
    block.joined.weight = at::cat({block.query.weight, block.key.weight, block.value.weight});
    if (shape_.query_bias) block.joined.bias = at::cat({block.query.bias, block.key.bias, block.value.bias});
    block.query = block.key = block.value = {};
  }
}

at::Tensor Transformer::attention(const Block& block, const at::Tensor& x, bool causal) const {
  const int64_t batch = x.size(0), length = x.size(1), heads = shape_.heads;
  const at::Tensor all = at::linear(x, block.joined.weight, block.joined.bias);
  const at::Tensor parts = all.view({batch, length, 3, heads, shape_.width / heads}).permute({2, 0, 3, 1, 4});
  const at::Tensor mixed =
      at::scaled_dot_product_attention(parts[0], parts[1], parts[2], /*attn_mask=*/{}, /*dropout_p=*/0.0, causal);
  return at::linear(mixed.transpose(1, 2).reshape({batch, length, shape_.width}), block.output.weight,
                    block.output.bias);
}

at::Tensor Transformer::feed_forward(const Block& block, const at::Tensor& x) const {
  at::Tensor inner = at::linear(x, block.up.weight, block.up.bias);
  if (shape_.gated) {
    inner = at::silu(inner.narrow(-1, 0, shape_.inner)) * inner.narrow(-1, shape_.inner, shape_.inner);
  } else if (shape_.activation == Activation::kQuickGelu) {
    inner.mul_(at::sigmoid(inner * 1.702));
  } else {
    inner = at::gelu(inner);
  }
  return at::linear(inner, block.down.weight, block.down.bias);
}

at::Tensor Transformer::forward(at::Tensor x, bool causal) const {
  for (const Block& block : blocks_) {
    at::Tensor mixed = attention(block, layer_norm(x, block.norm1.weight, block.norm1.bias, shape_.epsilon), causal);
    x = x + (shape_.scaled ? mixed.mul_(block.scale1) : mixed);
    mixed = feed_forward(block, layer_norm(x, block.norm2.weight, block.norm2.bias, shape_.epsilon));
    x = x + (shape_.scaled ? mixed.mul_(block.scale2) : mixed);
  }
  return x;
}

}  // namespace mdm::evaluation
