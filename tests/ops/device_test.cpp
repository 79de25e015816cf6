// Operations on a GPU against the same operations on the CPU. Skipped where there is no GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "mdm/ops/normalization.h"
#include "mdm/ops/optimizer.h"
#include "mdm/ops/quantile.h"
#include "mdm/ops/sampler_step.h"

namespace mdm::ops {
namespace {

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no GPU, or a build without CUDA";
  }
  at::Tensor normal(at::IntArrayRef shape) { return at::randn(shape, generator_, at::TensorOptions()); }

 private:
  at::Generator generator_ = at::detail::createCPUGenerator(3);
};

at::Tensor there(const at::Tensor& t) { return t.defined() ? t.to(at::kCUDA) : t; }

void expect_close(const at::Tensor& device, const at::Tensor& host, double tolerance) {
  ASSERT_EQ(device.sizes(), host.sizes());
  const at::Tensor difference = device.to(at::kCPU, at::kDouble) - host.to(at::kDouble);
  EXPECT_LE(difference.abs().max().item<double>(), tolerance * std::max(1.0, host.abs().max().item<double>()));
}

TEST_F(DeviceTest, GroupNormForwardAndBackward) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t channels : {32, 96, 768}) {
      for (const int64_t side : {1, 7, 64}) {
        const at::Tensor x = normal({2, channels, side, side}).to(type).contiguous(at::MemoryFormat::ChannelsLast);
        const at::Tensor dy = normal(x.sizes()).to(type);
        const std::vector<at::Tensor> numbers = {normal({channels}), normal({channels}), normal({2, channels}),
                                                 normal({2, channels})};
        const auto run = [&](bool on_device) {
          std::vector<at::Tensor> in = {on_device ? there(x) : x};
          for (const at::Tensor& t : numbers) in.push_back(on_device ? there(t) : t);
          for (at::Tensor& t : in) t = t.detach().clone().requires_grad_();
          const at::Tensor y = group_norm(in[0], channels / 8, in[1], in[2], in[3], in[4], /*silu=*/true);
          y.backward(on_device ? there(dy) : dy);
          std::vector<at::Tensor> out = {y.detach()};
          for (const at::Tensor& t : in) out.push_back(t.grad());
          return out;
        };
        const auto device = run(true), host = run(false);
        for (size_t i = 0; i < host.size(); ++i) {
          expect_close(device[i], host[i], type == at::kFloat ? 1e-4 : 2e-2);
        }
      }
    }
  }
}

TEST_F(DeviceTest, OptimizerStepHasTheBitsOfTheCpu) {
  for (const int64_t count : {1, 255, 100003, 5'000'001}) {
    for (const bool extras : {false, true}) {
      OptimizerBuffers host;
      host.weights = normal({count});
      host.gradients = normal({count});
      host.exp_avg = normal({count});
      host.exp_avg_sq = normal({count}).abs();
      if (extras) host.ema = normal({count});
      if (extras) host.compute = at::zeros({count}, at::kBFloat16);
      const OptimizerBuffers device = {there(host.weights),    there(host.gradients), there(host.exp_avg),
                                       there(host.exp_avg_sq), there(host.ema),       there(host.compute)};
      const at::Tensor squares = sum_of_squares_tensor(device.gradients);
      expect_close(squares / sum_of_squares(host.gradients), at::ones({1}, at::kDouble), 1e-12);
      AdamSettings settings;
      settings.weight_decay = 0.02;
      settings.update = 3;
      settings.ema_decay = 0.9;
      const auto clip = [&](const at::Tensor& sum) {
        const auto number = at::full({1}, 4.0, sum.options());
        return DeviceClip{sum, number, number, 0.5};
      };
      adamw_ema_step(device, settings, clip(squares));
      adamw_ema_step(host, settings, clip(squares.to(at::kCPU)));
      EXPECT_TRUE(device.weights.to(at::kCPU).equal(host.weights));
      EXPECT_TRUE(device.exp_avg.to(at::kCPU).equal(host.exp_avg));
      EXPECT_TRUE(device.exp_avg_sq.to(at::kCPU).equal(host.exp_avg_sq));
      EXPECT_TRUE(!extras || device.ema.to(at::kCPU).equal(host.ema));
      EXPECT_TRUE(!extras || device.compute.to(at::kCPU).equal(host.compute));
    }
  }
}

TEST_F(DeviceTest, SamplerStepHasTheBitsOfTheCpu) {
  for (const Predicts predicts : {Predicts::kX0, Predicts::kEps, Predicts::kV}) {
    for (const Bounds bounds : {Bounds::kNone, Bounds::kClip, Bounds::kQuantile}) {
      SamplerRule rule;
      rule.predicts = predicts;
      rule.threshold = {bounds, 0.95F, 1.5};
      rule.guidance = 3;
      std::vector<SamplerLevel> host, device;
      for (const int64_t side : {64, 33}) {
        SamplerLevel level;
        level.x_t = normal({2, 3, side, side});
        level.prediction = normal({4, 3, side, side}).contiguous(at::MemoryFormat::ChannelsLast);
        level.gamma = 0.4;
        level.next_x_0 = 0.5;
        level.next_x_t = 0.3;
        level.next_noise = 0.2;
        host.push_back(level);
        level.x_t = there(level.x_t);
        level.prediction = there(level.prediction);
        device.push_back(level);
      }
      const at::Tensor seeds = at::arange(2, at::kLong) + 100;
      const auto expected = sampler_step(host, rule, {seeds, 7});
      const auto actual = sampler_step(device, rule, {there(seeds), 7});
      for (size_t i = 0; i < host.size(); ++i) {
        EXPECT_TRUE(actual[i].x_0.to(at::kCPU).equal(expected[i].x_0));
        EXPECT_TRUE(actual[i].x_next.to(at::kCPU).equal(expected[i].x_next));
      }
    }
  }
}

TEST_F(DeviceTest, QuantilesAreThoseOfTheCpu) {
  for (const int64_t count : {1, 1000, 3 * 1024 * 1024}) {
    const at::Tensor x = normal({2, count});
    for (const float q : {0.5F, 0.95F, 0.995F, 1.0F}) {
      EXPECT_TRUE(abs_quantile(there(x), q).to(at::kCPU).equal(abs_quantile(x, q))) << count << " " << q;
    }
  }
}

}  // namespace
}  // namespace mdm::ops
