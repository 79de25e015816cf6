// Self- and text attention on the CPU as one operation with its own backward pass, by the kernel that is made for the
// shape.
#pragma once

#include <optional>

#include "mdm/ops/attention.h"

namespace mdm::ops {

// ops::attention() by the kernel of small_attention_cpu.h or attention_bf16_cpu.h; nullopt where neither suits.
std::optional<at::Tensor> fused_attention(const at::Tensor& qkv, int64_t heads, const KeyValue* text,
                                          const at::Tensor& text_mask);

}  // namespace mdm::ops
