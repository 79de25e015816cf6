// Attention against a straightforward computation in float64.
#include "mdm/ops/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace mdm::ops {
namespace {

// softmax(q k^T / sqrt(d)) v with hidden keys at -inf; (B, heads, N, d), hidden (B, L) or undefined.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& visible) {
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
  if (visible.defined()) {
    scores = scores.masked_fill(visible.logical_not().unsqueeze(1).unsqueeze(1), -INFINITY);
  }
  return at::matmul(at::softmax(scores, -1), v);
}

TEST(Attention, SelfAndTextAddUp) {
  at::Generator generator = at::detail::createCPUGenerator(1);
  const int64_t batch = 3, positions = 10, heads = 4, channels = 24, length = 6;
  const at::Tensor qkv = at::randn({batch, positions, 3 * channels}, generator, at::kDouble);
  KeyValue text;
  text.key = at::randn({batch, heads, length, channels / heads}, generator, at::kDouble);
  text.value = at::randn({batch, heads, length, channels / heads}, generator, at::kDouble);
  at::Tensor mask = at::ones({batch, length}, at::kBool);
  mask[1].narrow(0, 2, 4).fill_(false);

  const auto split = qkv.view({batch, positions, 3, heads, -1}).permute({2, 0, 3, 1, 4}).unbind(0);
  const auto together = [&](const at::Tensor& self, const at::Tensor& other) {
    return (self + other).transpose(1, 2).reshape({batch, positions, channels});
  };
  const at::Tensor self = plain_attention(split[0], split[1], split[2], {});
  const at::Tensor to_text = plain_attention(split[0], text.key, text.value, mask);
  const auto close = [](const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>() < 1e-5; };
  EXPECT_TRUE(close(attention(qkv, heads, nullptr, {}), together(self, at::zeros_like(self))));
  EXPECT_TRUE(close(attention(qkv, heads, &text, mask), together(self, to_text)));
  const KeyValue narrow{text.key.to(at::kFloat), text.value.to(at::kFloat)};
  EXPECT_TRUE(close(attention(qkv.to(at::kFloat), heads, &narrow, mask).to(at::kDouble), together(self, to_text)));
}

TEST(Attention, ARowThatMayLookNowhereGetsZero) {
  at::Generator generator = at::detail::createCPUGenerator(2);
  const at::Tensor q = at::randn({2, 1, 5, 8}, generator, at::kFloat),
                   k = at::randn({2, 1, 3, 8}, generator, at::kFloat);
  at::Tensor mask = at::ones({2, 3}, at::kBool);
  mask[0].fill_(false);
  const at::Tensor out = masked_attention(q, k, k, mask);
  EXPECT_EQ(out[0].abs().max().item<float>(), 0.0F);
  EXPECT_TRUE(out.isfinite().all().item<bool>());
  EXPECT_GT(out[1].abs().max().item<float>(), 0.0F);
}

}  // namespace
}  // namespace mdm::ops
