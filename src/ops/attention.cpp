#include "mdm/ops/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "ops/attention_bf16_cpu.h"
#include "ops/small_attention.h"

namespace mdm::ops {

at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask) {
  if (!mask.defined()) return at::scaled_dot_product_attention(q, k, v);
  // A row that may look nowhere would be 0/0. It is let look everywhere, and its result dropped.
  const at::Tensor any = mask.any(/*dim=*/1, /*keepdim=*/true);                          // (B, 1)
  const at::Tensor keys = mask.logical_or(any.logical_not()).unsqueeze(1).unsqueeze(1);  // (B, 1, 1, L)
  const at::Tensor out = at::scaled_dot_product_attention(q, k, v, keys);
  return at::where(any.unsqueeze(-1).unsqueeze(-1), out, at::zeros_like(out));
}

namespace {

// By the kernel of attention_bf16_cpu.h; nullopt where that has none.
std::optional<at::Tensor> attention_bf16(const at::Tensor& qkv, int64_t heads, const KeyValue* text,
                                         const at::Tensor& text_mask) {
  const auto last_is_dense = [](const at::Tensor& t) {
    return t.is_cpu() && t.scalar_type() == at::kBFloat16 && t.stride(t.dim() - 1) == 1;
  };
  const int64_t channels = qkv.size(2) / 3, text_keys = text != nullptr ? text->key.size(2) : 0;
  const bool gradient =
      c10::GradMode::is_enabled() && (qkv.requires_grad() || (text != nullptr && text->key.requires_grad()));
  if (gradient || qkv.numel() == 0 || !last_is_dense(qkv) || !qkv.is_contiguous() || channels % heads != 0 ||
      !bf16_attention_suits(channels / heads, std::max(qkv.size(1), text_keys))) {
    return std::nullopt;
  }
  if (text != nullptr && (!last_is_dense(text->key) || !last_is_dense(text->value))) return std::nullopt;
  RECORD_FUNCTION("mdm::attention",
                  text != nullptr ? std::vector<c10::IValue>({qkv, text->key}) : std::vector<c10::IValue>({qkv}));
  at::Tensor out = at::empty({qkv.size(0), qkv.size(1), channels}, qkv.options());
  const at::Tensor mask = text_mask.defined() ? text_mask.contiguous() : text_mask;
  Bf16Attention call;
  call.batch = qkv.size(0);
  call.positions = qkv.size(1);
  call.heads = heads;
  call.width = channels / heads;
  call.qkv = static_cast<const uint16_t*>(qkv.const_data_ptr());
  call.out = static_cast<uint16_t*>(out.mutable_data_ptr());
  if (text_keys > 0) {
    call.text_keys = text_keys;
    call.text_key = static_cast<const uint16_t*>(text->key.const_data_ptr());
    call.text_value = static_cast<const uint16_t*>(text->value.const_data_ptr());
    std::copy_n(text->key.strides().begin(), 3, call.key_strides);
    std::copy_n(text->value.strides().begin(), 3, call.value_strides);
    if (mask.defined()) call.text_mask = mask.const_data_ptr<bool>();
  }
  bf16_attention(call);
  return out;
}

}  // namespace

at::Tensor attention(const at::Tensor& qkv, int64_t heads, const KeyValue* text, const at::Tensor& text_mask) {
  if (std::optional<at::Tensor> fast = attention_of_small_heads(qkv, heads, text, text_mask)) return *fast;
  if (std::optional<at::Tensor> fast = attention_bf16(qkv, heads, text, text_mask)) return *fast;
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
