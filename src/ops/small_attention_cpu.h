// Softmax attention for heads of a few channels, forward and backward. General kernels make a product of
// matrices per head, which with 4 to 32 columns takes most of its time to begin; here 16 queries (or keys) are worked
// on at once, and their scores stay in the first caches.
#pragma once

#include <cstdint>

#include "ops/head_view.h"

namespace mdm::ops {

// Whether there is a kernel for heads of this many channels and this many keys.
bool small_attention_suits(int64_t width, int64_t keys);

// How many numbers the statistics of the softmax are.
int64_t small_attention_statistics(const HeadShape& a);

// out = softmax(q k^T / sqrt(width)) v, or is added to what is there. T: float, or uint16_t for bfloat16 bits
// (arithmetic in float32). Pictures whose mask is false everywhere get 0. `statistics` is for the backward pass.
template <typename T>
void small_attention(const HeadShape& a, HeadView<const T> q, HeadView<const T> k, HeadView<const T> v, HeadView<T> out,
                     bool add, float* statistics);

// From the gradient of `out` to those of q (set, or added to what is there), k and v (set).
template <typename T>
void small_attention_backward(const HeadShape& a, HeadView<const T> q, HeadView<const T> k, HeadView<const T> v,
                              HeadView<const T> dout, const float* statistics, HeadView<T> dq, bool add_dq,
                              HeadView<T> dk, HeadView<T> dv);

}  // namespace mdm::ops
