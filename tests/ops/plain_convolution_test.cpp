// Convolutions whose input is made again in the backward pass: what they keep, and their gradients.
#include "ops/plain_convolution.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/ops/dropout.h"
#include "mdm/ops/layers.h"
#include "mdm/ops/normalization.h"

namespace mdm::ops {
namespace {

at::Tensor random_image(at::IntArrayRef size, uint64_t seed, at::ScalarType type = at::kFloat) {
  return at::randn(size, at::detail::createCPUGenerator(seed), at::kDouble)
      .to(type)
      .contiguous(at::MemoryFormat::ChannelsLast);
}

std::vector<at::Tensor> gradients_of(const at::Tensor& y, const std::vector<at::Tensor>& leaves) {
  y.backward(random_image(y.sizes(), 99, y.scalar_type()));
  std::vector<at::Tensor> out;
  for (const at::Tensor& leaf : leaves) {
    out.push_back(leaf.grad());
    leaf.mutable_grad() = at::Tensor();
  }
  return out;
}

struct Layers {
  Layers(int64_t in, int64_t out, int64_t kernel, at::ScalarType type)
      : norm(2, in), conv(in, out, kernel, 1, kernel / 2) {
    const c10::NoGradGuard no_grad;
    norm.weight.normal_(1, 0.5, at::detail::createCPUGenerator(1));
    norm.bias.normal_(0, 0.5, at::detail::createCPUGenerator(2));
    conv.init(at::detail::createCPUGenerator(3));
    conv.to(type);
    if (type == at::kDouble) norm.to(type);
  }
  std::vector<at::Tensor> parameters() const { return {norm.weight, norm.bias, conv.weight, conv.bias}; }

  GroupNorm norm;
  Conv2d conv;
};

// A maker that counts its calls, and knows whether anybody keeps the memory of the last tensor it made.
struct Watched {
  int calls = 0;
  c10::weak_intrusive_ptr<c10::StorageImpl> last{c10::intrusive_ptr<c10::StorageImpl>()};
};

Recomputable watched(const Recomputable& x, const std::shared_ptr<Watched>& watch) {
  return {[make = x.maker(), watch](at::TensorList t) {
            const at::Tensor made = make(t);
            ++watch->calls;
            watch->last = made.storage().getWeakStorageImpl();
            return made;
          },
          x.from()};
}

TEST(PlainConvolution, DoesNotKeepAnInputThatCanBeMadeAgain) {
  struct Case {
    int64_t channels, kernel;
    at::ScalarType type;
  };
  for (const Case& c : {Case{8, 3, at::kFloat}, {8, 1, at::kFloat}, {512, 1, at::kBFloat16}, {8, 3, at::kBFloat16}}) {
    const Layers layers(c.channels, c.channels, c.kernel, c.type);
    const at::Tensor x = random_image({2, c.channels, 5, 5}, 4, c.type).requires_grad_();
    const auto watch = std::make_shared<Watched>();
    const at::Tensor y = layers.conv.forward(watched(layers.norm.silu_of(x), watch));
    EXPECT_EQ(watch->calls, 1);
    EXPECT_TRUE(watch->last.expired()) << c.channels << ' ' << c.type;
    y.sum().backward();
    EXPECT_EQ(watch->calls, 2);
    EXPECT_TRUE(watch->last.expired());
    // What is tested can differ: of a tensor, the input is kept.
    const auto other = std::make_shared<Watched>();
    const at::Tensor kept = layers.conv.forward(watched(layers.norm.silu_of(x), other).value());
    EXPECT_FALSE(other->last.expired());
  }
}

TEST(PlainConvolution, WithoutGradientsTheInputIsMadeOnceAndWhatItIsOfIsLetGo) {
  const c10::NoGradGuard no_grad;
  const Layers layers(8, 6, 3, at::kFloat);
  at::Tensor x = random_image({2, 8, 5, 5}, 4);
  const at::Tensor expected = at::conv2d(group_norm(x, 2, layers.norm.weight, layers.norm.bias, {}, {}, true),
                                         layers.conv.weight, layers.conv.bias, 1, 1);
  const auto source = x.storage().getWeakStorageImpl();
  const auto watch = std::make_shared<Watched>();
  const Recomputable input = watched(layers.norm.silu_of(x), watch);
  x.reset();
  EXPECT_TRUE(source.expired());
  EXPECT_FALSE(watch->last.expired());
  EXPECT_TRUE(layers.conv.forward(input).equal(expected));
  EXPECT_EQ(watch->calls, 1);
}

TEST(PlainConvolution, GradientsHaveTheBitsOfThoseWithAKeptInput) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t kernel : {1, 3}) {
      const Layers layers(16, 24, kernel, type);
      const at::Tensor x = random_image({2, 16, 7, 9}, 4, type).requires_grad_();
      const at::Tensor scale = at::randn({2, 16}, at::detail::createCPUGenerator(5)).requires_grad_();
      const at::Tensor shift = at::randn({2, 16}, at::detail::createCPUGenerator(6)).requires_grad_();
      std::vector<at::Tensor> leaves = layers.parameters();
      leaves.insert(leaves.end(), {x, scale, shift});
      const Recomputable input = layers.norm.silu_of(x, scale, shift);
      const at::Tensor again = layers.conv.forward(input), kept = layers.conv.forward(input.value());
      EXPECT_TRUE(again.equal(kept));
      const auto actual = gradients_of(again, leaves), expected = gradients_of(kept, leaves);
      for (size_t i = 0; i < leaves.size(); ++i) EXPECT_TRUE(actual[i].equal(expected[i])) << i << ' ' << type;
    }
  }
}

// In bfloat16 a 1x1 convolution of many channels is a product of matrices, and a 3x3 one of more makes the gradient of
// its weight in parts.
TEST(PlainConvolution, GradientsWithManyChannels) {
  for (const int64_t kernel : {1, 3}) {
    const Layers layers(kernel == 1 ? 512 : 1600, kernel == 1 ? 512 : 8, kernel, at::kBFloat16);
    const at::Tensor x = random_image({2, layers.conv.weight.size(1), 3, 4}, 4, at::kBFloat16).requires_grad_();
    std::vector<at::Tensor> leaves = layers.parameters();
    leaves.push_back(x);
    const auto actual = gradients_of(layers.conv.forward(layers.norm.of(x)), leaves);
    std::vector<at::Tensor> exact;
    for (const at::Tensor& leaf : leaves) exact.push_back(leaf.detach().to(at::kDouble).requires_grad_());
    const at::Tensor normed = group_norm_composition(exact[4], 2, exact[0], exact[1], {}, {}, false);
    const auto expected = gradients_of(at::conv2d(normed, exact[2], exact[3], 1, kernel / 2), exact);
    for (size_t i = 0; i < leaves.size(); ++i) {
      ASSERT_EQ(actual[i].sizes(), leaves[i].sizes());
      EXPECT_LT((actual[i].to(at::kDouble) - expected[i]).abs().max().item<double>(),
                2e-2 * expected[i].abs().max().item<double>())
          << i;
    }
  }
}

TEST(PlainConvolution, OnlyWhatAsksForAGradientGetsOne) {
  // By LibTorch, as a product, in parts.
  for (const Layers& layers :
       {Layers(8, 6, 3, at::kFloat), Layers(512, 512, 1, at::kBFloat16), Layers(1600, 8, 3, at::kBFloat16)}) {
    const at::Tensor x = random_image({1, layers.conv.weight.size(1), 4, 4}, 4, layers.conv.weight.scalar_type());
    std::vector<at::Tensor> leaves = layers.parameters();
    leaves.push_back(x.requires_grad_());
    const auto all = gradients_of(layers.conv.forward(layers.norm.of(x)), leaves);
    for (size_t frozen = 0; frozen <= leaves.size(); ++frozen) {
      for (size_t i = 0; i < leaves.size(); ++i) {
        // One is left out, or, in the last round, all but the convolution's own.
        leaves[i].set_requires_grad(frozen < leaves.size() ? i != frozen : i == 2 || i == 3);
      }
      const auto some = gradients_of(layers.conv.forward(layers.norm.of(x)), leaves);
      for (size_t i = 0; i < leaves.size(); ++i) {
        ASSERT_EQ(some[i].defined(), leaves[i].requires_grad()) << frozen << ' ' << i;
        if (some[i].defined()) {
          // The sums of the bias are made in another order with parts of the channels than with all of them.
          const at::Tensor error = (some[i].to(at::kFloat) - all[i].to(at::kFloat)).abs();
          EXPECT_LE(error.max().item<float>(), i == 3 ? 4e-3F * all[i].abs().max().item<float>() : 0)
              << frozen << ' ' << i << " of " << layers.conv.weight.sizes();
        }
      }
    }
    for (const at::Tensor& leaf : leaves) leaf.set_requires_grad(false);
    EXPECT_FALSE(layers.conv.forward(layers.norm.of(x)).requires_grad());
  }
}

// Gives zeros, and no gradient.
struct NoPart : torch::autograd::Function<NoPart> {
  static at::Tensor forward(torch::autograd::AutogradContext* /*context*/, const at::Tensor& x) {
    return at::zeros({1}, x.options());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* /*context*/,
                                                 const torch::autograd::variable_list& /*gradients*/) {
    return {at::Tensor()};
  }
};

TEST(PlainConvolution, GradientsAreThoseThatTheBackwardPassWants) {
  const Layers layers(8, 6, 3, at::kFloat);
  const at::Tensor x = random_image({1, 8, 4, 4}, 4).requires_grad_();
  const auto run = [&] { return layers.conv.forward(layers.norm.of(x)).sum(); };
  const at::Tensor alone = torch::autograd::grad({run()}, {x})[0];
  for (const at::Tensor& parameter : layers.parameters()) EXPECT_FALSE(parameter.grad().defined());
  run().backward();
  EXPECT_TRUE(x.grad().equal(alone));
  for (const at::Tensor& parameter : layers.parameters()) EXPECT_TRUE(parameter.grad().defined());
  // From a result that has no part in the loss nothing comes back.
  const at::Tensor other = random_image({1, 8, 4, 4}, 5).requires_grad_();
  (NoPart::apply(layers.conv.forward(layers.norm.of(other))) + x).sum().backward();
  EXPECT_FALSE(other.grad().defined());
  EXPECT_THROW(torch::autograd::grad({run()}, {x}, {}, /*retain_graph=*/true, /*create_graph=*/true), Error);
}

TEST(PlainConvolution, WhatItsInputIsMadeOfMayStandAside) {
  const Layers layers(8, 6, 3, at::kFloat);
  const at::Tensor x = random_image({1, 8, 4, 4}, 4), unused = random_image({1, 8, 4, 4}, 5).requires_grad_();
  const Recomputable first([](at::TensorList t) { return t[0] * 2; }, {x, unused});
  layers.conv.forward(first).sum().backward();
  EXPECT_TRUE(layers.conv.weight.grad().defined());
  EXPECT_FALSE(unused.grad().defined());
}

// Layouts that a gradient may come in.
TEST(PlainConvolution, TakesAnyGradient) {
  for (const bool product : {false, true}) {
    const Layers layers = product ? Layers(512, 512, 1, at::kBFloat16) : Layers(8, 512, 3, at::kFloat);
    const at::ScalarType type = layers.conv.weight.scalar_type();
    const at::Tensor x = random_image({2, product ? 512 : 8, 3, 5}, 4, type).requires_grad_();
    std::vector<at::Tensor> leaves = layers.parameters();
    leaves.push_back(x);
    const at::Tensor row = random_image({1, 512, 1, 1}, 7, type);
    const at::Tensor expanded = row.expand({2, 512, 3, 5}), whole = expanded.contiguous(at::MemoryFormat::ChannelsLast);
    std::vector<at::Tensor> expected;
    for (const at::Tensor& dy : {whole, expanded, expanded.contiguous()}) {
      layers.conv.forward(layers.norm.of(x)).backward(dy);
      for (size_t i = 0; i < leaves.size(); ++i) {
        if (expected.size() < leaves.size()) {
          expected.push_back(leaves[i].grad());
        } else {
          EXPECT_LT((leaves[i].grad() - expected[i]).abs().max().item<float>(),
                    (product ? 2e-2F : 2e-6F) * expected[i].abs().max().item<float>())
              << i;
        }
        leaves[i].mutable_grad() = at::Tensor();
      }
    }
  }
}

// Every input that a model makes, in float64 against differences of the loss.
TEST(PlainConvolution, GradientsAgreeWithFiniteDifferences) {
  const Layers layers(8, 4, 3, at::kDouble), joining(8, 4, 1, at::kDouble);
  const at::Tensor x = random_image({2, 8, 3, 3}, 4, at::kDouble), half = random_image({2, 4, 3, 3}, 5, at::kDouble),
                   rest = random_image({2, 4, 3, 3}, 6, at::kDouble);
  const at::Tensor scale = at::randn({2, 8}, at::detail::createCPUGenerator(7), at::kDouble);
  const at::Tensor shift = at::randn({2, 8}, at::detail::createCPUGenerator(8), at::kDouble);
  DropoutSource source;
  source.samples = {5, 6};
  const auto dropped = [&] {
    const Recomputable norm = layers.norm.silu_of(x, scale, shift);
    return Recomputable([make = norm.maker(), source](at::TensorList t) { return dropout(make(t), 0.3, source, 2, 2); },
                        norm.from());
  };
  struct Case {
    const char* name;
    std::function<at::Tensor()> run;
  };
  const Case cases[] = {
      {"norm", [&] { return layers.conv.forward(layers.norm.of(x)); }},
      {"modulated norm and SiLU", [&] { return layers.conv.forward(layers.norm.silu_of(x, scale, shift)); }},
      {"joined", [&] { return layers.conv.forward(layers.norm.silu_of_joined(half, rest)); }},
      {"dropout", [&] { return layers.conv.forward_plus(dropped(), half); }},
      {"GELU",
       [&] {
         return layers.conv.forward(joining.conv.forward_gelu(joining.norm.of(x)).value().repeat({1, 2, 1, 1}));
       }},
      {"GELU of a convolution",
       [&] {
         return joining.conv.forward_onto(half, Recomputable{[](at::TensorList t) { return at::gelu(t[0]); }, {x}});
       }},
      {"joined by the convolution", [&] { return joining.conv.forward_joined(half, rest); }},
      {"upsampled", [&] { return layers.conv.forward_upsampled(x); }},
  };
  std::vector<at::Tensor> leaves = {x, half, rest, scale, shift};
  for (const Layers* both : {&layers, &joining}) {
    for (const at::Tensor& parameter : both->parameters()) leaves.push_back(parameter);
  }
  for (const at::Tensor& leaf : leaves) leaf.set_requires_grad(true);
  for (const Case& c : cases) {
    const at::Tensor direction = at::randn(c.run().sizes(), at::detail::createCPUGenerator(9), at::kDouble);
    const auto loss = [&] { return (c.run() * direction).sum(); };
    loss().backward();
    int checked = 0;
    for (const at::Tensor& leaf : leaves) {
      const at::Tensor gradient = leaf.grad();
      leaf.mutable_grad() = at::Tensor();
      if (!gradient.defined()) continue;
      const c10::NoGradGuard no_grad;
      at::Tensor flat = at::as_strided(leaf, {leaf.numel()}, {1});
      const at::Tensor analytic =
          at::as_strided(gradient.contiguous(leaf.suggest_memory_format()), {leaf.numel()}, {1});
      for (int64_t i = 0; i < flat.numel(); i += 5) {
        const double before = flat[i].item<double>(), step = 1e-6;
        flat[i].fill_(before + step);
        const double above = loss().item<double>();
        flat[i].fill_(before - step);
        const double below = loss().item<double>();
        flat[i].fill_(before);
        EXPECT_NEAR(analytic[i].item<double>(), (above - below) / (2 * step), 2e-6) << c.name;
        ++checked;
      }
    }
    EXPECT_GT(checked, 30) << c.name;
  }
}

}  // namespace
}  // namespace mdm::ops
