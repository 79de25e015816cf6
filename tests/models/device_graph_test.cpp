// CUDA graphs of the forward pass against the model's own run. Skipped where there is no GPU.
#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <gtest/gtest.h>

#include "diffusion/test_model.h"
#include "mdm/models/graphed_forward.h"

namespace mdm {
namespace {

using testing::kTextWidth;
using testing::random_tensor;
using testing::random_text;
using testing::tiny_config;
using Levels = std::vector<at::Tensor>;

class DeviceGraphTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no GPU, or a build without CUDA";
  }
  static bool equal(const Levels& a, const Levels& b) {
    bool same = a.size() == b.size();
    for (size_t i = 0; same && i < a.size(); ++i) same = a[i].equal(b[i]);
    return same;
  }
  const at::NoGradGuard no_grad_;
};

// Attention over pictures and text, both levels, both types, text of rows that see less of it.
std::shared_ptr<UNet> model_there(at::ScalarType type) {
  ModelConfig config = tiny_config(2);
  for (UNetConfig& level : config.levels) {
    level.resolution_channels = {32, 64};
    level.attention_levels = {1};
    level.num_attention_layers = {0, 1};
    level.skip_mid_blocks = false;
  }
  ModelOptions options;
  options.dtype = type;
  options.channels_last = true;
  auto model = make_model(config, kTextWidth, options);
  const at::Generator generator = make_generator(17);
  for (at::Tensor& parameter : model->parameters()) parameter.normal_(0, 0.1, generator);
  model->eval();
  model->to(at::kCUDA);
  return model;
}

TEST_F(DeviceGraphTest, StepsHaveTheBitsOfTheModelsOwnRun) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto model = model_there(type);
    GraphMaker make = graph_maker(at::Device(at::kCUDA, 0));
    ASSERT_TRUE(make);
    for (const bool padded : {false, true}) {
      TextEmbedding text = random_text(4);
      if (padded) text.attended_lengths = {4, 3, 2, 1};
      const Conditioning pairs = model->condition(&text, {}, 4), half = pairs.rows(2, 2);
      GraphedForward forward(*model, make, 50);
      for (int64_t i = 0; i < 24; ++i) {
        const bool whole = i < 4 || i >= 12;  // with guidance, without, and with it again
        const int64_t rows = whole ? 4 : 2;
        const Conditioning& conditioning = whole ? pairs : half;
        const auto seed = static_cast<uint64_t>(i);
        const Levels x_t = {random_tensor({rows, 3, 32, 32}, seed).to(at::kCUDA),
                            random_tensor({rows, 3, 16, 16}, seed + 100).to(at::kCUDA)};
        const at::Tensor times = at::full({rows}, 990 - 40 * i, at::TensorOptions(at::kLong).device(at::kCUDA));
        const Levels out = forward(x_t, times, conditioning, {});
        EXPECT_TRUE(equal(out, model->forward(x_t, times, conditioning))) << type << " " << padded << " " << i;
        EXPECT_TRUE(make) << "a graph failed, or differed: see the warning";
      }
    }
  }
}

// What waits for the device can't be recorded; afterwards the device is as before, and another graph can be recorded.
TEST_F(DeviceGraphTest, AFailedRecordingLeavesTheDeviceUsable) {
  const GraphMaker make = graph_maker(at::Device(at::kCUDA, 0));
  ASSERT_TRUE(make);
  const at::Tensor x = at::ones({1000}, at::TensorOptions().device(at::kCUDA));
  for (int i = 0; i < 3; ++i) {
    const auto graph = make();
    const DeviceGraph::Work waits = [&] { return Levels{x * x.sum().item<float>()}; };
    EXPECT_EQ(graph->warm_up(waits)[0].sum().item<float>(), 1e6F);
    EXPECT_ANY_THROW(graph->record(waits));
    EXPECT_EQ((x + 1).sum().item<float>(), 2000);
  }
  const auto graph = make();
  const DeviceGraph::Work works = [&] { return Levels{x * x.sum()}; };
  graph->warm_up(works);
  graph->record(works);
  for (int i = 1; i < 5; ++i) {
    x.fill_(i);
    EXPECT_EQ(graph->replay()[0].sum().item<float>(), 1e6F * static_cast<float>(i * i));
  }
}

TEST_F(DeviceGraphTest, TheMemoryOfARunIsGivenBack) {
  const auto model = model_there(at::kFloat);
  GraphMaker make = graph_maker(at::Device(at::kCUDA, 0));
  const TextEmbedding text = random_text(2);
  const auto run = [&] {
    const Conditioning conditioning = model->condition(&text, {}, 2);
    GraphedForward forward(*model, make, 50);
    for (int64_t i = 0; i < 4; ++i) {
      const Levels x_t = {at::randn({2, 3, 256, 256}, at::kCUDA), at::randn({2, 3, 128, 128}, at::kCUDA)};
      forward(x_t, at::full({2}, 10 * i, at::TensorOptions(at::kLong).device(at::kCUDA)), conditioning, {});
    }
  };
  const auto free_memory = [] {
    at::accelerator::emptyCache();
    return at::accelerator::getMemoryInfo(0).first;
  };
  run();  // with what libraries keep
  const auto before = free_memory();
  for (int i = 0; i < 5; ++i) run();
  EXPECT_TRUE(make);
  EXPECT_GE(free_memory() + (size_t{16} << 20), before);
}

}  // namespace
}  // namespace mdm
