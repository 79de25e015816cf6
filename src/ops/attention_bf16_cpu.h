// Self- and text attention in bfloat16 for CPUs that multiply pairs of bfloat16 (avx512_bf16): scores of some queries
// over all keys, softmax, and the sum of the values, all in the second cache; nothing the size of queries times
// keys is ever in memory. LibTorch's own attention reaches a third of such a CPU's speed. Inference only.
#pragma once

#include <cstdint>

namespace mdm::ops {

struct Bf16Attention {
  int64_t batch = 0, heads = 0, width = 0;  // width: of a head
  int64_t positions = 0;
  const uint16_t* qkv = nullptr;  // (B, positions, 3, heads, width), contiguous
  int64_t text_keys = 0;          // 0: no text
  const uint16_t* text_key = nullptr;
  const uint16_t* text_value = nullptr;  // both (B, heads, text_keys, width), the last dimension contiguous
  int64_t key_strides[3] = {}, value_strides[3] = {};  // of their other three dimensions
  const bool* text_mask = nullptr;                     // (B, text_keys), true where keys count; nullptr: all do
  uint16_t* out = nullptr;                             // (B, positions, heads, width), contiguous
};

// Whether this CPU has the instructions (and not those of AMX, with which LibTorch's attention is fast), and the kernel
// takes heads of this width and that many keys.
bool bf16_attention_suits(int64_t width, int64_t keys);

// softmax(q k^T / sqrt(width)) v, plus the same over the text, in a softmax of its own. Scores, softmax and sums are
// float32; a softmax's numerators are rounded to bfloat16. A picture whose text keys are all masked gets nothing from
// them.
void bf16_attention(const Bf16Attention& arguments);

}  // namespace mdm::ops
