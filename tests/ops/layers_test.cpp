// Leaf layers: names, fresh weights, packed weights.
#include "mdm/ops/layers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

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
