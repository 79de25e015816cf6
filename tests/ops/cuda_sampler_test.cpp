// The CUDA kernel of the sampling step, run on the CPU by an emulation, against the CPU kernel: the same bits, noise
// included.
#include "support/cuda_emulation.h"

#include "ops/sampler_step_cuda.cu"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "ops/sampler_step_cpu.h"

namespace mdm::ops {
namespace {

class Numbers {
 public:
  int64_t between(int64_t least, int64_t most) { return std::uniform_int_distribution<int64_t>(least, most)(random_); }
  bool coin() { return between(0, 1) == 1; }
  std::vector<float> normal(int64_t count) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& v : out) v = std::normal_distribution<float>()(random_);
    return out;
  }

 private:
  std::mt19937 random_{9};
};

// One level's memory.
struct Level {
  SamplerArguments arguments;
  std::vector<float> x_t, prediction, noise, bounds, x_0, x_next;

  Level(Numbers& numbers, int64_t batch, int64_t channels, int64_t positions, bool guided, uint32_t layer) {
    const int64_t count = batch * channels * positions;
    x_t = numbers.normal(count);
    prediction = numbers.normal(2 * count);
    noise = numbers.normal(count);
    bounds = numbers.normal(batch);
    for (float& b : bounds) b = 1 + std::fabs(b);
    x_0 = numbers.normal(count);
    x_next.assign(static_cast<size_t>(count), NAN);
    arguments.batch = batch;
    arguments.channels = channels;
    arguments.positions = positions;
    arguments.row_stride = channels * positions;
    const bool channels_last = numbers.coin();
    arguments.channel_stride = channels_last ? 1 : positions;
    arguments.position_stride = channels_last ? channels : 1;
    arguments.signal = 0.6F;
    arguments.deviation = 0.8F;
    arguments.image_scale = numbers.coin() ? 1 : 2.5F;
    arguments.next_x_0 = 0.3F;
    arguments.next_x_t = 0.7F;
    arguments.next_noise = numbers.coin() ? 0.2F : 0;
    arguments.layer = layer;
    advances = numbers.coin();
    noisy = numbers.coin();
  }

  SamplerArguments pointers() {
    SamplerArguments a = arguments;
    a.x_t = x_t.data();
    a.prediction = prediction.data();
    a.noise = noisy ? noise.data() : nullptr;
    a.bounds = bounds.data();
    a.x_0 = x_0.data();
    a.x_next = advances ? x_next.data() : nullptr;
    return a;
  }

  bool advances = true, noisy = false;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(CudaSampler, HasTheBitsOfTheCpuKernel) {
  Numbers numbers;
  for (int round = 0; round < 60; ++round) {
    const int64_t batch = numbers.between(1, 3), channels = numbers.between(1, 4);
    SamplerPlan plan;
    plan.predicts = static_cast<Predicts>(numbers.between(0, 2));
    plan.stage = static_cast<Stage>(round % 3);
    plan.clips = numbers.coin();
    plan.guided = numbers.coin();
    plan.guidance = 3;
    const std::vector<uint64_t> seeds = {7, ~uint64_t{0}, uint64_t{1} << 40};
    plan.seeds = numbers.coin() ? seeds.data() : nullptr;
    plan.step = static_cast<uint64_t>(numbers.between(0, 249));
    std::vector<Level> device, host;
    for (int64_t i = numbers.between(1, 3); i-- > 0;) {
      device.emplace_back(numbers, batch, channels, numbers.between(1, 700), plan.guided,
                          static_cast<uint32_t>(device.size()));
    }
    host = device;
    std::vector<SamplerArguments> arguments;
    for (Level& level : device) arguments.push_back(level.pointers());
    sampler_step_cuda(arguments, plan, nullptr);
    for (Level& level : host) sampler_step_cpu(level.pointers(), plan);
    for (size_t i = 0; i < device.size(); ++i) {
      EXPECT_TRUE(same_bits(device[i].x_0, host[i].x_0)) << "round " << round << " level " << i;
      EXPECT_TRUE(same_bits(device[i].x_next, host[i].x_next)) << "round " << round << " level " << i;
    }
  }
}

// Its own noise is random_normal()'s.
TEST(CudaSampler, DrawsTheNumbersOfCore) {
  Numbers numbers;
  for (const int64_t positions : {1, 5, 64, 1023}) {
    Level level(numbers, 2, 3, positions, false, 4);
    level.advances = true;
    level.noisy = false;
    level.arguments.next_x_0 = level.arguments.next_x_t = 0;
    level.arguments.next_noise = 1;
    const std::vector<uint64_t> seeds = {3, uint64_t{5} << 60};
    SamplerPlan plan;
    plan.seeds = seeds.data();
    plan.step = 17;
    sampler_step_cuda({level.pointers()}, plan, nullptr);
    for (size_t i = 0; i < seeds.size(); ++i) {
      RandomAddress address;
      address.seed = seeds[i];
      address.step = 17;
      address.stream = RandomStream::kStep;
      address.layer = 4;
      std::vector<float> expected(static_cast<size_t>(3 * positions));
      random_normal(address, 0, expected.data(), expected.size());
      const auto* drawn = level.x_next.data() + i * expected.size();
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), drawn)) << positions << " positions, image " << i;
    }
  }
}

TEST(CudaSampler, TakesNoMoreLevelsThanItHasRoomFor) {
  EXPECT_NO_THROW(sampler_step_cuda({}, {}, nullptr));
  EXPECT_THROW(sampler_step_cuda(std::vector<SamplerArguments>(kMostSamplerLevels + 1), {}, nullptr), Error);
}

}  // namespace
}  // namespace mdm::ops
