// What blocks keep between the forward and the backward pass, counted in maps of their size.
#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <memory>

#include "mdm/models/blocks.h"

namespace mdm {
namespace {

// Bytes of tensors that this thread allocated and has not freed, while it is installed.
class LiveBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*data*/, int64_t change, size_t /*allocated*/, size_t /*reserved*/,
                         c10::Device /*device*/) override {
    bytes += change;
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t bytes = 0;
};

constexpr int64_t kBatch = 2, kChannels = 32, kSide = 32;
constexpr double kMap = kBatch * kChannels * kSide * kSide * sizeof(float);

at::Tensor image(int64_t channels, uint64_t seed) {
  return at::randn({kBatch, channels, kSide, kSide}, at::detail::createCPUGenerator(seed))
      .contiguous(at::MemoryFormat::ChannelsLast)
      .requires_grad_();
}

// Maps that are alive after the forward pass, its result included.
template <typename Forward>
double maps_kept(const Forward& forward) {
  const auto live = std::make_shared<LiveBytes>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
  const at::Tensor y = forward();
  const double maps = static_cast<double>(live->bytes) / kMap;
  y.sum().backward();
  return maps;
}

StageInputs inputs() {
  static const ForwardContext context;
  StageInputs in;
  in.temb = at::randn({kBatch, 16}, at::detail::createCPUGenerator(1));
  in.context = &context;
  return in;
}

TEST(KeptActivations, OfAResidualBlock) {
  ResNetConfig config;
  config.num_channels = kChannels;
  config.output_channels = kChannels;
  config.num_groups_norm = 8;
  ResNet block(16, config);
  block.init({at::detail::createCPUGenerator(2), LayerInit::kSmallNormal});
  const at::Tensor x = image(kChannels, 3);
  // The first convolution's result, and the block's; neither the norms' nor the second convolution's.
  EXPECT_NEAR(maps_kept([&] { return block.forward(x, {}, inputs(), 0); }), 2, 0.1);
}

TEST(KeptActivations, OfAResidualBlockWithASkipConnection) {
  ResNetConfig config;
  config.num_channels = 2 * kChannels;
  config.output_channels = kChannels;
  config.num_groups_norm = 8;
  ResNet block(16, config);
  block.init({at::detail::createCPUGenerator(2), LayerInit::kSmallNormal});
  const at::Tensor x = image(kChannels, 3), skip = image(kChannels, 4);
  // Neither is what joins x and skip, twice as large.
  EXPECT_NEAR(maps_kept([&] { return block.forward(x, skip, inputs(), 0); }), 2, 0.1);
}

TEST(KeptActivations, OfAnAttentionLayer) {
  SelfAttention layer(kChannels, /*text_dim=*/-1, /*with_ffn=*/true);
  layer.init({at::detail::createCPUGenerator(2), LayerInit::kSmallNormal});
  const at::Tensor x = image(kChannels, 3);
  // Queries, keys and values, what was attended to, the sum after it, GELU's input four times as wide, the result;
  // and of each softmax a number or two, which are up to half a map where heads have 4 channels.
  EXPECT_NEAR(maps_kept([&] { return layer.forward(x, nullptr, inputs(), ""); }), 3 + 1 + 1 + 4 + 1 + 0.25, 0.3);
}

TEST(KeptActivations, OfAnUpsampling) {
  Conv2d conv(kChannels, kChannels, 3, 1, 1);
  conv.init(at::detail::createCPUGenerator(2));
  const at::Tensor x = image(kChannels, 3);
  EXPECT_NEAR(maps_kept([&] { return conv.forward_upsampled(x); }), 4, 0.1) << "the result is four times as large";
}

}  // namespace
}  // namespace mdm
