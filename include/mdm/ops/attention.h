// Attention over image positions and text.
#pragma once

#include <ATen/core/Tensor.h>

namespace mdm::ops {

/// Keys and values that one cross-attention layer has made of the text, both (B, heads, L, C / heads).
struct KeyValue {
  at::Tensor key;
  at::Tensor value;
};

/// Softmax attention of the queries over themselves, plus (in a softmax of its own) over the text:
/// softmax(q k^T / sqrt(d)) v + softmax(q k_text^T / sqrt(d)) v_text.
/// (Reference: ml_mdm/models/unet.py, SelfAttention.forward: the two results are added.)
/// qkv: (B, N, 3 C), thirds q, k, v; heads are contiguous groups of C / heads channels.
/// text: nullptr without text. text_mask: (B, L) bool, true where a row may look; undefined: everywhere.
/// A row without any true position gets nothing from the text.
/// Returns (B, N, C).
at::Tensor attention(const at::Tensor& qkv, int64_t heads, const KeyValue* text, const at::Tensor& text_mask);

/// softmax(q k^T / sqrt(d)) v for (B, heads, N, d) with an optional (B, L) bool mask of the keys; a row
/// without any true key gives 0. Returns (B, heads, N, d).
at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask);

}  // namespace mdm::ops
