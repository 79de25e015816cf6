// Softmax attention in bfloat16 for CPUs that multiply pairs of bfloat16 (avx512_bf16), forward and backward: scores of
// some queries over all keys, softmax, and the sum of the values, all in the second cache; nothing the size of
// queries times keys is ever in memory. LibTorch's own attention reaches a third of such a CPU's speed.
#pragma once

#include <cstdint>

#include "ops/head_view.h"

namespace mdm::ops {

// Whether this CPU has the instructions (and not those of AMX, with which LibTorch's attention is fast), and the kernel
// takes heads of this width and that many keys.
bool bf16_attention_suits(int64_t width, int64_t keys);

// How many numbers the statistics of the softmax are.
int64_t bf16_attention_statistics(const HeadShape& a);

// out = softmax(q k^T / sqrt(width)) v, or is added to what is there. Scores, softmax and sums are float32; a softmax's
// numerators are rounded to bfloat16. Pictures whose mask is false everywhere get 0. `statistics` is for the backward
// pass.
void bf16_attention(const HeadShape& a, HeadView<const uint16_t> q, HeadView<const uint16_t> k,
                    HeadView<const uint16_t> v, HeadView<uint16_t> out, bool add, float* statistics);

// From the gradient of `out` to those of q (set, or added to what is there), k and v (set).
void bf16_attention_backward(const HeadShape& a, HeadView<const uint16_t> q, HeadView<const uint16_t> k,
                             HeadView<const uint16_t> v, HeadView<const uint16_t> dout, const float* statistics,
                             HeadView<uint16_t> dq, bool add_dq, HeadView<uint16_t> dk, HeadView<uint16_t> dv);

}  // namespace mdm::ops
