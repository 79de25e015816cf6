// The sampling step as one operation against its definition by ATen, and the quantile of its threshold.
#include "mdm/ops/sampler_step.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/ops/quantile.h"

namespace mdm::ops {
namespace {

int cases() {
  const char* const text = std::getenv("MDM_OP_SHAPES");
  return text != nullptr ? std::atoi(text) : 40;
}

class SamplerDice {
 public:
  int64_t between(int64_t least, int64_t most) { return std::uniform_int_distribution<int64_t>(least, most)(random_); }
  bool coin() { return between(0, 1) == 1; }
  double share() { return std::uniform_real_distribution<double>(0.02, 0.98)(random_); }
  at::Tensor normal(at::IntArrayRef shape) { return at::randn(shape, generator_, at::TensorOptions()); }
  at::Tensor laid_out(const at::Tensor& x) {
    switch (between(0, 3)) {
      case 0: return x.contiguous();
      case 1: return at::cat({x, x}, 3).narrow(3, 0, x.size(3));  // gaps between rows
      case 2: return x.transpose(2, 3).contiguous().transpose(2, 3);
      default: return x.contiguous(at::MemoryFormat::ChannelsLast);
    }
  }

 private:
  std::mt19937 random_{31};
  at::Generator generator_ = at::detail::createCPUGenerator(31);
};

SamplerRule random_rule(SamplerDice& dice) {
  SamplerRule rule;
  rule.predicts = static_cast<Predicts>(dice.between(0, 2));
  rule.threshold.bounds = static_cast<Bounds>(dice.between(0, 2));
  rule.threshold.quantile = 0.95F;
  rule.threshold.largest = dice.coin() ? 1.5 : 100;
  rule.guidance = dice.coin() ? 3.5 : 1;
  rule.advances = dice.coin();
  return rule;
}

SamplerLevel random_level(SamplerDice& dice, const SamplerRule& rule, int64_t batch) {
  const int64_t channels = dice.between(1, 4), height = dice.between(1, 40), width = dice.between(1, 40);
  SamplerLevel level;
  level.x_t = dice.laid_out(dice.normal({batch, channels, height, width}));
  level.prediction = dice.laid_out(dice.normal({batch * (rule.guidance == 1 ? 1 : 2), channels, height, width}) * 2);
  level.gamma = dice.share();
  level.image_scale = dice.coin() ? 1 : 4;
  level.next_x_0 = dice.share();
  level.next_x_t = dice.share();
  level.next_noise = dice.coin() ? dice.share() : 0;
  if (dice.coin()) level.noise = dice.laid_out(dice.normal(level.x_t.sizes()));
  return level;
}

void expect_near(const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  ASSERT_EQ(actual.defined(), expected.defined());
  if (!actual.defined()) return;
  ASSERT_EQ(actual.sizes(), expected.sizes());
  if (actual.numel() == 0) return;
  const double largest = std::max(1.0, expected.abs().max().item<double>());
  EXPECT_LE((actual - expected).abs().max().item<double>(), tolerance * largest);
}

TEST(SamplerStep, EqualsItsComposition) {
  SamplerDice dice;
  for (int round = 0; round < cases(); ++round) {
    const SamplerRule rule = random_rule(dice);
    const int64_t batch = round % 20 == 19 ? 0 : dice.between(1, 3);
    std::vector<SamplerLevel> levels;
    for (int64_t i = dice.between(1, 3); i-- > 0;) levels.push_back(random_level(dice, rule, batch));
    StepNoise noise;
    noise.step = static_cast<uint64_t>(dice.between(0, 200));
    if (dice.coin()) noise.seeds = at::arange(batch, at::kLong) * 1'000'000'007;
    const auto actual = sampler_step(levels, rule, noise);
    const auto expected = sampler_step_composition(levels, rule, noise);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      SCOPED_TRACE(::testing::Message() << "round " << round << ", level " << i << " " << levels[i].x_t.sizes());
      expect_near(actual[i].x_0, expected[i].x_0, 2e-6);
      expect_near(actual[i].x_next, expected[i].x_next, 2e-6);
    }
  }
}

// Rows may be split among runs, and threads among rows.
TEST(SamplerStep, HasTheSameBitsInAnyBatchAndOnAnyThreads) {
  SamplerDice dice;
  SamplerRule rule;
  rule.guidance = 2;
  rule.threshold = {Bounds::kQuantile, 0.995F, 100};
  SamplerLevel all;
  all.x_t = dice.normal({3, 3, 33, 31});
  all.prediction = (dice.normal({6, 3, 33, 31}) * 2).contiguous(at::MemoryFormat::ChannelsLast);
  all.gamma = 0.3;
  all.next_x_0 = 0.4;
  all.next_x_t = 0.5;
  all.next_noise = 0.6;
  const StepNoise noise = {at::arange(3, at::kLong) + 11, 5};
  const SteppedLevel together = sampler_step({all}, rule, noise)[0];
  SamplerLevel one = all;
  one.x_t = all.x_t.narrow(0, 1, 1);
  one.prediction = at::cat({all.prediction.narrow(0, 1, 1), all.prediction.narrow(0, 4, 1)}).contiguous();
  const SteppedLevel alone = sampler_step({one}, rule, {noise.seeds.narrow(0, 1, 1), 5})[0];
  EXPECT_TRUE(alone.x_0.equal(together.x_0.narrow(0, 1, 1)));
  EXPECT_TRUE(alone.x_next.equal(together.x_next.narrow(0, 1, 1)));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  EXPECT_TRUE(sampler_step({all}, rule, noise)[0].x_next.equal(together.x_next));
  at::set_num_threads(threads);
}

TEST(SamplerStep, TakesOtherTypesAndRecordsGradients) {
  SamplerDice dice;
  SamplerLevel level;
  level.x_t = dice.normal({2, 3, 4, 5}).to(at::kDouble);
  level.prediction = dice.normal({2, 3, 4, 5}).to(at::kDouble);
  level.gamma = 0.25;
  level.next_x_0 = 1;
  SamplerRule rule;
  const auto exact = sampler_step({level}, rule)[0];
  EXPECT_EQ(exact.x_0.scalar_type(), at::kDouble);
  EXPECT_TRUE(exact.x_0.allclose(level.x_t * 0.5 - level.prediction * std::sqrt(0.75)));
  level.x_t = level.x_t.to(at::kFloat);
  level.prediction = level.prediction.to(at::kFloat).requires_grad_();
  sampler_step({level}, rule)[0].x_next.sum().backward();
  EXPECT_TRUE(level.prediction.grad().allclose(at::full_like(level.prediction, -std::sqrt(0.75))));
}

TEST(SamplerStep, RefusesWhatDoesNotFit) {
  SamplerLevel level;
  level.x_t = at::zeros({2, 3, 4, 4});
  level.prediction = at::zeros({2, 3, 4, 4});
  SamplerRule rule;
  EXPECT_NO_THROW(sampler_step({level}, rule));
  rule.guidance = 2;
  EXPECT_THROW(sampler_step({level}, rule), Error);
  rule.guidance = 1;
  EXPECT_THROW(sampler_step({level}, rule, {at::zeros({3}, at::kLong), 0}), Error);
  level.noise = at::zeros({2, 3, 4, 5});
  EXPECT_THROW(sampler_step({level}, rule), Error);
}

TEST(AbsQuantile, EqualsItsComposition) {
  SamplerDice dice;
  for (int round = 0; round < cases(); ++round) {
    const at::Tensor x =
        dice.laid_out(dice.normal({dice.between(1, 3), dice.between(1, 3), dice.between(1, 30), dice.between(1, 30)}));
    for (const float q : {0.0F, 0.5F, 0.95F, 0.995F, 1.0F}) {
      EXPECT_TRUE(abs_quantile(x, q).allclose(abs_quantile_composition(x, q), 1e-6, 1e-7)) << x.sizes() << " " << q;
    }
  }
  EXPECT_THROW(abs_quantile(at::zeros({3, 0}), 0.5F), Error);
  EXPECT_THROW(abs_quantile(at::zeros({3, 2}, at::kDouble), 0.5F), Error);
}

}  // namespace
}  // namespace mdm::ops
