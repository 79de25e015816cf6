// Attention against a straightforward computation in float64.
#include "mdm/ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "ops/attention_bf16_cpu.h"
#include "ops/fused_attention.h"

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

struct SmallHeads {
  int64_t batch, positions, heads, width, length;  // length 0: no text
  bool masked;
};

class SmallHeadAttention : public ::testing::TestWithParam<SmallHeads> {};

// The kernel's outputs and gradients against the definition in float64, on the same rounded inputs.
TEST_P(SmallHeadAttention, EqualsTheDefinition) {
  const SmallHeads s = GetParam();
  at::Generator generator = at::detail::createCPUGenerator(3);
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, generator, at::kDouble); };
  const int64_t channels = s.heads * s.width;
  const at::Tensor qkv = random({s.batch, s.positions, 3 * channels}) * 1.5;
  const at::Tensor both = random({s.batch, std::max<int64_t>(s.length, 1), 2, s.heads, s.width});
  const at::Tensor direction = random({s.batch, s.positions, channels});
  at::Tensor mask;
  if (s.masked) {
    mask = at::ones({s.batch, s.length}, at::kBool);
    for (int64_t b = 0; b < s.batch; ++b) mask[b].narrow(0, 0, (b * 5) % (s.length + 1)).fill_(false);
  }
  for (const auto& [type, tolerance] : {std::pair{at::kFloat, 3e-6}, std::pair{at::kBFloat16, 2e-2}}) {
    const auto run = [&](bool fast) {
      const auto input = [&](const at::Tensor& t) {
        const at::Tensor rounded = t.to(type);
        return (fast ? rounded : rounded.to(at::kDouble)).detach().requires_grad_();
      };
      const at::Tensor x = input(qkv), text_values = input(both);
      const auto parts = text_values.permute({2, 0, 3, 1, 4}).unbind(0);  // strided, as the model's are
      const KeyValue text{parts[0], parts[1]};
      at::Tensor out;
      if (fast) {
        const auto result = fused_attention(x, s.heads, s.length > 0 ? &text : nullptr, mask);
        if (!result) throw std::logic_error("no kernel for this shape");
        out = *result;
      } else {
        const auto split = x.view({s.batch, s.positions, 3, s.heads, -1}).permute({2, 0, 3, 1, 4}).unbind(0);
        out = plain_attention(split[0], split[1], split[2], {});
        if (s.length > 0) {
          at::Tensor other = plain_attention(split[0], text.key, text.value, mask);
          if (mask.defined()) {
            const at::Tensor any = mask.any(1).view({-1, 1, 1, 1});
            other = at::where(any, other, at::zeros_like(other));
          }
          out = out + other;
        }
        out = out.transpose(1, 2).reshape({s.batch, s.positions, channels});
      }
      out.backward(direction.to(type).to(out.scalar_type()));
      std::vector<at::Tensor> results = {out.detach(), x.grad()};
      if (s.length > 0) results.push_back(text_values.grad().nan_to_num());
      return results;
    };
    const auto actual = run(true), expected = run(false);
    for (size_t i = 0; i < actual.size(); ++i) {
      const at::Tensor want = i == 1 ? expected[i].nan_to_num() : expected[i];
      const double error = (actual[i].to(at::kDouble) - want).abs().max().item<double>();
      EXPECT_LT(error, tolerance * want.abs().max().item<double>()) << i << ' ' << type;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, SmallHeadAttention,
                         ::testing::Values(SmallHeads{2, 256, 8, 8, 16, true}, SmallHeads{3, 17, 2, 4, 5, true},
                                           SmallHeads{1, 1, 1, 8, 1, false}, SmallHeads{2, 64, 8, 16, 33, false},
                                           SmallHeads{2, 70, 3, 32, 7, true}, SmallHeads{2, 31, 4, 8, 0, false}));

// The kernel knows one row of text a picture; with others it would read beyond the text.
TEST(Attention, TextOfAnotherBatchIsNotForTheKernel) {
  at::Generator generator = at::detail::createCPUGenerator(4);
  const int64_t heads = 2, width = 8, length = 5;
  const at::Tensor qkv = at::randn({4, 6, 3 * heads * width}, generator, at::kFloat);
  const auto text_of = [&](int64_t batch) {
    return KeyValue{at::randn({batch, heads, length, width}, generator, at::kFloat),
                    at::randn({batch, heads, length, width}, generator, at::kFloat)};
  };
  const KeyValue whole = text_of(4), one = text_of(1), two = text_of(2);
  EXPECT_TRUE(fused_attention(qkv, heads, &whole, {}).has_value());
  EXPECT_FALSE(fused_attention(qkv, heads, &one, {}).has_value());
  EXPECT_FALSE(fused_attention(qkv, heads, &two, {}).has_value());
  const KeyValue uneven{whole.key, two.value};
  EXPECT_FALSE(fused_attention(qkv, heads, &uneven, {}).has_value());
  EXPECT_FALSE(fused_attention(qkv, heads, &whole, at::ones({2, length}, at::kBool)).has_value());
  // One text for all pictures is shared; two for four fit no picture.
  const KeyValue shared{one.key.expand({4, heads, length, width}), one.value.expand({4, heads, length, width})};
  EXPECT_TRUE(attention(qkv, heads, &one, {}).allclose(attention(qkv, heads, &shared, {}), 1e-5, 1e-6));
  EXPECT_ANY_THROW(attention(qkv, heads, &two, {}));
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

// The kernel for CPUs with avx512_bf16: outputs and gradients against the definition in float64, on the same rounded
// inputs.
TEST(Bf16Attention, EqualsTheDefinition) {
  if (!bf16_attention_suits(64, 64)) GTEST_SKIP() << "this CPU has no avx512_bf16, or has AMX";
  std::mt19937 random(5);
  const auto between = [&](int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
  };
  const char* const more = std::getenv("MDM_OP_SHAPES");
  const int rounds = more != nullptr ? std::atoi(more) : 40;
  for (int round = 0; round < rounds; ++round) {
    const int64_t batch = between(1, 3), heads = between(1, 4), width = 16 * between(3, 8);
    const int64_t positions = round < 4 ? round + 1 : between(1, 150), length = round % 3 == 0 ? 0 : between(1, 70);
    const int64_t channels = heads * width;
    const at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(round));
    const auto numbers = [&](at::IntArrayRef shape) {
      return at::randn(shape, generator, at::kFloat).to(at::kBFloat16);
    };
    const at::Tensor qkv = numbers({batch, positions, 3 * channels}) * 1.5,
                     direction = numbers({batch, positions, channels});
    const at::Tensor both = numbers({batch, std::max<int64_t>(length, 1), 2, heads, width});
    at::Tensor mask;
    if (length > 0 && round % 2 == 0) {
      mask = at::rand({batch, length}, generator, at::kFloat) < 0.6;
      mask[0].fill_(false);  // may look nowhere
    }
    const auto run = [&](bool fast) {
      const at::ScalarType type = fast ? at::kBFloat16 : at::kDouble;
      const at::Tensor x = qkv.to(type).detach().requires_grad_(),
                       text_values = both.to(type).detach().requires_grad_();
      const auto parts = text_values.permute({2, 0, 3, 1, 4}).unbind(0);  // strided, as the model's are
      const KeyValue text{parts[0], parts[1]};
      at::Tensor out;
      if (fast) {
        const auto result = fused_attention(x, heads, length > 0 ? &text : nullptr, mask);
        if (!result) throw std::logic_error("no kernel for this shape");
        out = *result;
      } else {
        const auto split = x.view({batch, positions, 3, heads, width}).permute({2, 0, 3, 1, 4}).unbind(0);
        out = plain_attention(split[0], split[1], split[2], {});
        if (length > 0) {
          at::Tensor other = plain_attention(split[0], text.key, text.value, mask);
          if (mask.defined()) other = at::where(mask.any(1).view({-1, 1, 1, 1}), other, at::zeros_like(other));
          out = out + other;
        }
        out = out.transpose(1, 2).reshape({batch, positions, channels});
      }
      out.backward(direction.to(type));
      std::vector<at::Tensor> results = {out.detach(), x.grad()};
      if (length > 0) results.push_back(text_values.grad());
      return results;
    };
    const auto actual = run(true), again = run(true), expected = run(false);
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(actual[i].scalar_type(), at::kBFloat16);
      const at::Tensor want = expected[i].nan_to_num();
      const double error = (actual[i].to(at::kDouble) - want).abs().max().item<double>();
      EXPECT_LE(error, 1.5e-2 * want.abs().max().item<double>())
          << "tensor " << i << " of round " << round << ": " << batch << " x " << positions << ", " << heads
          << " heads of " << width << ", text " << length;
      EXPECT_TRUE(again[i].equal(actual[i])) << "not the same twice";
    }
  }
}

TEST(Bf16Attention, HasTheSameBitsOnOneThreadAndTwo) {
  if (!bf16_attention_suits(64, 64)) GTEST_SKIP() << "this CPU has no avx512_bf16, or has AMX";
  const int threads = at::get_num_threads();
  const auto run = [](int count) {
    at::set_num_threads(count);
    const at::Tensor x = at::randn({2, 130, 3 * 4 * 64}, at::detail::createCPUGenerator(4), at::kFloat)
                             .to(at::kBFloat16)
                             .requires_grad_();
    const at::Tensor out = attention(x, 4, nullptr, {});
    out.backward(at::ones_like(out));
    return std::pair(out.detach(), x.grad());
  };
  const auto one = run(1), two = run(2);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.first.equal(two.first));
  EXPECT_TRUE(one.second.equal(two.second));
}

TEST(Bf16Attention, KeepsANanAndTakesLargeScores) {
  if (!bf16_attention_suits(64, 64)) GTEST_SKIP() << "this CPU has no avx512_bf16, or has AMX";
  const c10::NoGradGuard no_grad;
  at::Tensor qkv = (at::randn({1, 20, 3 * 64}) * 300).to(at::kBFloat16);
  EXPECT_TRUE(attention(qkv, 1, nullptr, {}).isfinite().all().item<bool>());
  qkv[0][7][3] = NAN;  // of a query: its own row alone
  const at::Tensor rows = attention(qkv, 1, nullptr, {}).isnan().any(-1)[0];
  EXPECT_TRUE(rows[7].item<bool>());
  EXPECT_EQ(rows.sum().item<int64_t>(), 1);
}

}  // namespace
}  // namespace mdm::ops
