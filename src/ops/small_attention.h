// Self- and text attention with small heads on the CPU as one operation with its own backward pass.
#pragma once

#include <optional>

#include "mdm/ops/attention.h"

namespace mdm::ops {

// ops::attention() by the kernel of small_attention_cpu.h; nullopt where that has none.
std::optional<at::Tensor> attention_of_small_heads(const at::Tensor& qkv, int64_t heads, const KeyValue* text,
                                                   const at::Tensor& text_mask);

}  // namespace mdm::ops
