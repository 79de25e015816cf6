// Leaf layers: names, fresh weights, packed weights.
#include "mdm/ops/layers.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "mdm/core/error.h"
#include "ops/winograd_cpu.h"

namespace mdm {
namespace {

TEST(Layers, FreshWeightsStayWithinTheBound) {
  Conv2d conv(16, 32, 3, 1, 1);
  conv.init(at::detail::createCPUGenerator(3));
  const double bound = 1.0 / std::sqrt(16.0 * 9.0);
  EXPECT_LE(conv.weight.abs().max().item<double>(), bound);
  EXPECT_GT(conv.weight.abs().max().item<double>(), 0.95 * bound);
  EXPECT_LE(conv.bias.abs().max().item<double>(), bound);
  EXPECT_NEAR(conv.weight.to(at::kDouble).std().item<double>(), bound / std::sqrt(3.0), 0.03 * bound);
}

TEST(Layers, ZeroedLayersConsumeTheSameDraws) {
  at::Generator a = at::detail::createCPUGenerator(4), b = at::detail::createCPUGenerator(4);
  Linear first(8, 8), second(8, 8), after_first(8, 8), after_second(8, 8);
  first.init(a);
  second.init(b, LayerInit::kZero);
  after_first.init(a);
  after_second.init(b);
  EXPECT_EQ(second.weight.abs().max().item<float>(), 0.0F);
  EXPECT_TRUE(after_first.weight.equal(after_second.weight));
}

TEST(Layers, SmallNormalHasTheStatedDeviation) {
  Linear layer(400, 300);
  layer.init(at::detail::createCPUGenerator(5), LayerInit::kSmallNormal);
  EXPECT_NEAR(layer.weight.to(at::kDouble).std().item<double>(), 0.6 / 20.0, 3e-4);
  EXPECT_EQ(layer.bias.abs().max().item<float>(), 0.0F);
}

TEST(Layers, PackedConvolutionEqualsThePlainOne) {
  const c10::NoGradGuard no_grad;
  for (const int64_t kernel : {1, 3}) {
    for (const int64_t stride : {1, 2}) {
      Conv2d conv(32, 48, kernel, stride, kernel / 2);
      conv.init(at::detail::createCPUGenerator(6));
      const at::Tensor x = at::randn({2, 32, 16, 16}).contiguous(at::MemoryFormat::ChannelsLast);
      const at::Tensor other = at::randn({1, 32, 10, 14}).contiguous(at::MemoryFormat::ChannelsLast);
      const at::Tensor expected = conv.forward(x), expected_other = conv.forward(other);
      conv.pack({2, 32, 16, 16});
      EXPECT_EQ(conv.weight.numel(), 0);
      EXPECT_LT((conv.forward(x) - expected).abs().max().item<float>(), 2e-6F);
      EXPECT_LT((conv.forward(other) - expected_other).abs().max().item<float>(), 2e-6F);
    }
  }
}

// Sizes at which packing chooses Winograd's algorithm, and then others that it must serve as well.
TEST(Layers, WinogradConvolutionEqualsThePlainOne) {
  const c10::NoGradGuard no_grad;
  Conv2d conv(64, 80, 3, 1, 1);
  conv.init(at::detail::createCPUGenerator(6));
  ASSERT_TRUE(ops::WinogradConvolution::suits(conv.weight, {2, 64, 32, 32}, false));
  std::vector<at::Tensor> inputs, expected;
  for (const std::vector<int64_t>& size : std::vector<std::vector<int64_t>>{
           {2, 64, 32, 32}, {1, 64, 9, 15}, {3, 64, 1, 1}, {1, 64, 2, 3}, {1, 64, 130, 131}}) {
    inputs.push_back(at::randn(size, at::detail::createCPUGenerator(7)));  // the first not channels_last
    if (inputs.size() > 1) inputs.back() = inputs.back().contiguous(at::MemoryFormat::ChannelsLast);
    expected.push_back(conv.forward(inputs.back()));
  }
  conv.pack({2, 64, 32, 32});
  EXPECT_EQ(conv.weight.numel(), 0);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor actual = conv.forward(inputs[i]);
    ASSERT_EQ(actual.sizes(), expected[i].sizes());
    EXPECT_TRUE(actual.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_LT((actual - expected[i]).abs().max().item<float>(), 6e-6F) << inputs[i].sizes();
  }
}

TEST(Layers, WinogradConvolutionIsAsAccurateAsTheType) {
  const c10::NoGradGuard no_grad;
  Conv2d conv(256, 64, 3, 1, 1);
  conv.init(at::detail::createCPUGenerator(6));
  const at::Tensor x = at::randn({1, 256, 32, 32}, at::detail::createCPUGenerator(8));
  const at::Tensor exact = at::conv2d(x.to(at::kDouble), conv.weight.to(at::kDouble), conv.bias.to(at::kDouble), 1, 1);
  conv.pack(x.sizes());
  const at::Tensor error = (conv.forward(x).to(at::kDouble) - exact).abs();
  EXPECT_LT(error.max().item<double>(), 1e-6 * exact.abs().max().item<double>());
}

TEST(Layers, ConvolutionOfAnUpsampledImage) {
  const c10::NoGradGuard no_grad;
  for (const int64_t channels : {32, 64}) {  // four 2x2 convolutions, and Winograd's
    Conv2d conv(channels, 96, 3, 1, 1);
    conv.init(at::detail::createCPUGenerator(6));
    const std::vector<int64_t> packed_for = {2, channels, 8, 8};
    EXPECT_EQ(ops::WinogradConvolution::suits(conv.weight, packed_for, true), channels == 64);
    std::vector<at::Tensor> inputs, expected;
    for (const auto& [height, width] : {std::pair<int64_t, int64_t>{8, 8}, {1, 1}, {7, 3}}) {
      inputs.push_back(at::randn({2, channels, height, width}, at::detail::createCPUGenerator(7))
                           .contiguous(at::MemoryFormat::ChannelsLast));
      const at::Tensor twice = inputs.back().repeat_interleave(2, 2).repeat_interleave(2, 3);
      expected.push_back(conv.forward(twice));
      EXPECT_LT((conv.forward_upsampled(inputs.back()) - expected.back()).abs().max().item<float>(), 6e-6F);
    }
    conv.pack_upsampled(packed_for);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const at::Tensor actual = conv.forward_upsampled(inputs[i]);
      ASSERT_EQ(actual.sizes(), expected[i].sizes());
      EXPECT_LT((actual - expected[i]).abs().max().item<float>(), 6e-6F) << inputs[i].sizes();
    }
    EXPECT_THROW(conv.forward(inputs[0]), Error);
    EXPECT_THROW(conv.forward_plus(inputs[0], inputs[0]), Error);
    EXPECT_THROW(conv.forward_onto(inputs[0], inputs[0]), Error);
    EXPECT_THROW(conv.forward_gelu(ops::Recomputable(inputs[0])), Error);
  }
}

TEST(Layers, AConvolutionPackedForJoinedInputsTakesNoOthers) {
  const c10::NoGradGuard no_grad;
  Conv2d conv(48, 32, 1);
  conv.init(at::detail::createCPUGenerator(6));
  const at::Tensor x = at::randn({2, 32, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor rest = at::randn({2, 16, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor expected = conv.forward_joined(x, rest);
  conv.pack_joined({2, 48, 4, 4}, 32);
  EXPECT_LT((conv.forward_joined(x, rest) - expected).abs().max().item<float>(), 6e-6F);
  EXPECT_THROW(conv.forward(x), Error) << "half of the weight would be left out";
  EXPECT_THROW(conv.forward_plus(x, expected), Error);
  EXPECT_THROW(conv.forward_onto(expected, x), Error);
  EXPECT_THROW(conv.forward_gelu(ops::Recomputable(x)), Error);
}

// What follows a convolution is part of its pass once the weight is packed; the results are those of the plain layers.
TEST(Layers, WhatFollowsAPackedConvolution) {
  const c10::NoGradGuard no_grad;
  struct Case {
    int64_t in, out, kernel, side;
  };
  for (const auto& [in, out, kernel, side] : {Case{32, 48, 3, 16}, {48, 96, 1, 9}, {64, 64, 3, 32}, {24, 7, 1, 5}}) {
    for (const auto& [type, tolerance] : {std::pair{at::kFloat, 2e-6}, std::pair{at::kBFloat16, 1.6e-2}}) {
      Conv2d conv(in, out, kernel, 1, kernel / 2);
      conv.init(at::detail::createCPUGenerator(6));
      const at::Tensor weight = conv.weight.to(type).to(at::kDouble), bias = conv.bias.to(type).to(at::kDouble);
      conv.to(type);
      const auto image = [&](int64_t channels, uint64_t seed) {
        return at::randn({2, channels, side, side}, at::detail::createCPUGenerator(seed))
            .to(type)
            .contiguous(at::MemoryFormat::ChannelsLast);
      };
      const at::Tensor x = image(in, 1), added = image(out, 2);
      const at::Tensor plain = at::conv2d(x.to(at::kDouble), weight, bias, 1, kernel / 2);
      const at::Tensor sum = plain + added.to(at::kDouble);
      const auto expect = [&, tolerance = tolerance](const at::Tensor& actual, const at::Tensor& wanted,
                                                     const char* what) {
        ASSERT_EQ(actual.sizes(), wanted.sizes());
        const double error = (actual.to(at::kDouble) - wanted).abs().max().item<double>();
        EXPECT_LT(error, tolerance * wanted.abs().max().item<double>()) << what << " of " << x.sizes() << " " << type;
      };
      for (const bool packed : {false, true}) {
        if (packed) conv.pack(x.sizes());
        expect(conv.forward(x), plain, "convolution");
        expect(conv.forward_gelu(ops::Recomputable(x)).value(), at::gelu(plain), "gelu");
        const at::Tensor before = added.clone();
        expect(conv.forward_plus(x, added), sum, "sum");
        EXPECT_TRUE(added.equal(before)) << "forward_plus changed what it added to";
        expect(conv.forward_onto(added.clone(at::MemoryFormat::ChannelsLast), x), sum, "sum in place");
      }
    }
  }
}

TEST(Layers, AJoinedConvolutionNeedsNoJoinedTensor) {
  const c10::NoGradGuard no_grad;
  for (const auto& [type, tolerance] : {std::pair{at::kFloat, 2e-6}, std::pair{at::kBFloat16, 1.6e-2}}) {
    Conv2d conv(48, 40, 1);
    conv.init(at::detail::createCPUGenerator(6));
    conv.to(type);
    const at::Tensor x = at::randn({2, 16, 7, 9}).to(type).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor rest = at::randn({2, 32, 7, 9}).to(type).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor wanted =
        at::conv2d(at::cat({x, rest}, 1).to(at::kDouble), conv.weight.to(at::kDouble), conv.bias.to(at::kDouble));
    for (const bool packed : {false, true}) {
      if (packed) conv.pack_joined({2, 48, 7, 9}, 16);
      EXPECT_EQ(conv.packed_joined(), packed);
      const double error = (conv.forward_joined(x, rest).to(at::kDouble) - wanted).abs().max().item<double>();
      EXPECT_LT(error, tolerance * wanted.abs().max().item<double>()) << type;
    }
  }
}

TEST(Layers, ModuleListNamesPlacesWithoutParameters) {
  ModuleList list;
  list.add(std::make_shared<LayerNorm>(4));
  list.skip();
  list.add(std::make_shared<Linear>(4, 4));
  std::vector<std::string> names;
  for (const auto& item : list.named_parameters()) names.push_back(item.key());
  EXPECT_EQ(names, (std::vector<std::string>{"0.weight", "0.bias", "2.weight", "2.bias"}));
}

}  // namespace
}  // namespace mdm
