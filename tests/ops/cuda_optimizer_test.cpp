// The CUDA kernels of the optimizer step, run on the CPU by an emulation, against the CPU kernels: the same bits.
#include "support/cuda_emulation.h"

#include "ops/adamw_ema_cuda.cu"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

namespace mdm::ops {
namespace {

constexpr float kUntouched = -77;
constexpr int64_t kBeyond = 8;  // elements behind the buffers that must stay as they are

class Buffers {
 public:
  // `shift`: elements that the buffers begin behind an alignment of 16 bytes.
  Buffers(std::mt19937& random, int64_t numbers, int64_t shift, bool with_ema, bool with_compute)
      : count(numbers), shift_(shift), with_ema_(with_ema), with_compute_(with_compute) {
    std::normal_distribution<float> normal;
    for (auto* values : {&weights, &gradients, &exp_avg, &exp_avg_sq, &ema}) {
      values->assign(static_cast<size_t>(shift + count + kBeyond), kUntouched);
      for (int64_t i = 0; i < count; ++i) (*values)[static_cast<size_t>(shift + i)] = normal(random);
    }
    for (float& v : exp_avg_sq) v = std::fabs(v);
    compute.assign(weights.size(), 0x1234);
  }

  AdamPointers pointers() {
    AdamPointers p;
    p.weights = weights.data() + shift_;
    p.gradients = gradients.data() + shift_;
    p.exp_avg = exp_avg.data() + shift_;
    p.exp_avg_sq = exp_avg_sq.data() + shift_;
    p.ema = with_ema_ ? ema.data() + shift_ : nullptr;
    p.compute = with_compute_ ? compute.data() + shift_ : nullptr;
    return p;
  }

  bool operator==(const Buffers& other) const {
    return weights == other.weights && gradients == other.gradients && exp_avg == other.exp_avg &&
           exp_avg_sq == other.exp_avg_sq && ema == other.ema && compute == other.compute;
  }

  int64_t count;
  std::vector<float> weights, gradients, exp_avg, exp_avg_sq, ema;
  std::vector<uint16_t> compute;

 private:
  int64_t shift_;
  bool with_ema_, with_compute_;
};

AdamNumbers numbers_of_step(std::mt19937& random) {
  std::uniform_real_distribution<float> share(0.01F, 0.99F);
  AdamNumbers n;
  for (float* v : {&n.gradient_factor, &n.blend1, &n.beta2, &n.blend2, &n.shrink, &n.step_size, &n.root_scale, &n.eps,
                   &n.ema_blend}) {
    *v = share(random);
  }
  return n;
}

int random_cases() {
  const char* text = std::getenv("MDM_OP_SHAPES");
  return text != nullptr ? std::atoi(text) : 40;
}

TEST(CudaOptimizer, StepHasTheBitsOfTheCpuKernel) {
  std::mt19937 random(1);
  for (int round = 0; round < random_cases(); ++round) {
    const int64_t count =
        round == 0 ? 0 : std::uniform_int_distribution<int64_t>(1, round % 4 == 0 ? 9000 : 40)(random);
    const int64_t shift = round % 3 == 0 ? std::uniform_int_distribution<int64_t>(1, 3)(random) : 0;
    for (const bool ema : {false, true}) {
      for (const bool compute : {false, true}) {
        SCOPED_TRACE(::testing::Message()
                     << count << " numbers, shift " << shift << ", ema " << ema << ", compute " << compute);
        Buffers device(random, count, shift, ema, compute), host = device, again = device;
        const AdamNumbers numbers = numbers_of_step(random);
        adamw_ema_cuda(device.pointers(), numbers, {}, count, nullptr);
        adamw_ema_cuda(again.pointers(), numbers, {}, count, nullptr);
        adamw_ema_cpu(host.pointers(), numbers, count);
        EXPECT_TRUE(device == host);
        EXPECT_TRUE(device == again);
      }
    }
  }
}

TEST(CudaOptimizer, ClipsByNumbersOfTheDevice) {
  std::mt19937 random(2);
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinite = std::numeric_limits<double>::infinity();
  struct Case {
    double squares, loss, weight, clip;
    bool steps;
  };
  for (const Case& c : {Case{1e4, 3, 8, 1, true},
                        {1e4, 3, 8, 1e9, true},
                        {0, 0, 8, 1, true},
                        {1e4, 3, 0, 1, false},
                        {nan, 3, 8, 1, false},
                        {infinite, 3, 8, 1, false},
                        {1e4, nan, 8, 1, false},
                        {1e4, infinite, 8, 1, false},
                        {1e4, 3, nan, 1, false},
                        {1e4, -3, 0.125, 2, true}}) {
    SCOPED_TRACE(::testing::Message() << c.squares << " " << c.loss << " " << c.weight << " " << c.clip);
    Buffers device(random, 1003, 0, true, true), host = device;
    AdamNumbers numbers = numbers_of_step(random);
    adamw_ema_cuda(device.pointers(), numbers, {&c.squares, &c.loss, &c.weight, c.clip}, device.count, nullptr);
    if (c.steps) {
      const double norm = std::sqrt(c.squares) / c.weight;
      numbers.gradient_factor = static_cast<float>(std::min(1.0, c.clip / (norm + 1e-6)) / c.weight);
      adamw_ema_cpu(host.pointers(), numbers, host.count);
    }
    EXPECT_TRUE(device == host);
  }
}

TEST(CudaOptimizer, RoundsWhatIsNotFinite) {
  std::mt19937 random(3);
  Buffers device(random, 16, 0, true, true), host = device;
  device.weights[3] = host.weights[3] = std::numeric_limits<float>::quiet_NaN();
  device.weights[5] = host.weights[5] = std::numeric_limits<float>::infinity();
  device.weights[6] = host.weights[6] = 3.4e38F;
  const AdamNumbers numbers = numbers_of_step(random);
  adamw_ema_cuda(device.pointers(), numbers, {}, 16, nullptr);
  adamw_ema_cpu(host.pointers(), numbers, 16);
  EXPECT_EQ(device.compute, host.compute);
}

TEST(CudaOptimizer, SumsSquares) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0, 1e15F);
  for (const int64_t count : {0, 1, 255, 256, 257, 16383, 16384, 16385, 50001}) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = normal(random);
    const double expected = sum_of_squares_cpu(values.data(), count);
    std::vector<double> work(static_cast<size_t>(sum_of_squares_cuda_workspace(count)), NAN);
    double sum = NAN, again = NAN;
    sum_of_squares_cuda(values.data(), count, &sum, work.data(), nullptr);
    sum_of_squares_cuda(values.data(), count, &again, work.data(), nullptr);
    EXPECT_NEAR(sum, expected, 1e-13 * expected) << count;
    EXPECT_EQ(sum, again);
    if (count > 300) {
      values[300] = std::numeric_limits<float>::quiet_NaN();
      sum_of_squares_cuda(values.data(), count, &sum, work.data(), nullptr);
      EXPECT_TRUE(std::isnan(sum));
    }
  }
}

TEST(CudaOptimizer, LaunchesFitAnyDevice) {
  for (const int64_t count : {int64_t{1}, int64_t{255}, int64_t{1} << 20, int64_t{481'000'000}, int64_t{1} << 40}) {
    EXPECT_GE(FlatLaunch::blocks(count), 1);
    EXPECT_LE(FlatLaunch::blocks(count), FlatLaunch::kMostBlocks);
    if (count < FlatLaunch::kMostBlocks * FlatLaunch::kThreads) {
      EXPECT_GE(FlatLaunch::blocks(count) * FlatLaunch::kThreads, count) << "a thread for each";
    }
    EXPECT_LE(SumLaunch::blocks(count), (int64_t{1} << 31) - 1);
    EXPECT_GE(SumLaunch::blocks(count) * SumLaunch::kChunk, count);
    EXPECT_LT((SumLaunch::blocks(count) - 1) * SumLaunch::kChunk, count);
  }
}

}  // namespace
}  // namespace mdm::ops
