#include "mdm/ops/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <optional>

#include "ops/fused_attention.h"

namespace mdm::ops {

at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask) {
  if (!mask.defined()) return at::scaled_dot_product_attention(q, k, v);
  // A row that may look nowhere would be 0/0. It is let look everywhere, and its result dropped.
  const at::Tensor any = mask.any(/*dim=*/1, /*keepdim=*/true);                          // (B, 1)
  const at::Tensor keys = mask.logical_or(any.logical_not()).unsqueeze(1).unsqueeze(1);  // (B, 1, 1, L)
  const at::Tensor out = at::scaled_dot_product_attention(q, k, v, keys);
  return at::where(any.unsqueeze(-1).unsqueeze(-1), out, at::zeros_like(out));
}

at::Tensor attention(const at::Tensor& qkv, int64_t heads, const KeyValue* text, const at::Tensor& text_mask) {
  if (std::optional<at::Tensor> fast = fused_attention(qkv, heads, text, text_mask)) return *fast;
  const int64_t batch = qkv.size(0);
  const int64_t positions = qkv.size(1);
  const int64_t channels = qkv.size(2) / 3;
  const auto parts = qkv.view({batch, positions, 3, heads, channels / heads}).permute({2, 0, 3, 1, 4}).unbind(0);
  const at::Tensor& q = parts[0];  // (B, heads, N, C / heads)
  at::Tensor out = at::scaled_dot_product_attention(q, parts[1], parts[2]);
  if (text != nullptr) out = out + masked_attention(q, text->key, text->value, text_mask);
  return out.transpose(1, 2).reshape({batch, positions, channels});
}

}  // namespace mdm::ops
