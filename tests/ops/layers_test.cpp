// Leaf layers: names, fresh weights, packed weights.
#include "mdm/ops/layers.h"

#include <ATen/ATen.h>
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
  EXPECT_TRUE(conv.packed());
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
  for (const int64_t channels : {32, 64}) {  // oneDNN's and Winograd's
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
    conv.pack(packed_for, /*upsampled=*/true);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const at::Tensor actual = conv.forward_upsampled(inputs[i]);
      ASSERT_EQ(actual.sizes(), expected[i].sizes());
      EXPECT_LT((actual - expected[i]).abs().max().item<float>(), 6e-6F) << inputs[i].sizes();
    }
    if (channels == 64) {
      EXPECT_THROW(conv.forward(inputs[0]), Error);
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
