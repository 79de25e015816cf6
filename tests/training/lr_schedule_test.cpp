// Learning rates and averaging decays against their formulas.
#include "mdm/training/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mdm {
namespace {

TrainerConfig config(LrDecay decay) {
  TrainerConfig c;
  c.lr = 0.5;
  c.warmup_steps = 10;
  c.num_training_steps = 110;
  c.lr_decay = decay;
  c.lr_end = 0.1;
  return c;
}

TEST(LearningRate, RisesEvenlyAndReachesItsPeak) {
  const LearningRate rate(config(LrDecay::kConstant));
  for (uint64_t n = 0; n < 10; ++n) EXPECT_DOUBLE_EQ(rate.at(n), 0.5 * static_cast<double>(n + 1) / 10);
  EXPECT_DOUBLE_EQ(rate.at(10), 0.5);
  EXPECT_DOUBLE_EQ(rate.at(100000), 0.5);
}

TEST(LearningRate, StartsAtThePeakWithoutWarmUp) {
  TrainerConfig c = config(LrDecay::kConstant);
  c.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(LearningRate(c).at(0), 0.5);
}

TEST(LearningRate, FallsAsSaid) {
  const LearningRate cosine(config(LrDecay::kCosine)), linear(config(LrDecay::kLinear)),
      inverse(config(LrDecay::kInverseSqrt));
  // The update before which n others were made is number n + 1; 60 is the middle of 10 .. 110.
  EXPECT_NEAR(cosine.at(59), 0.5 * (0.1 + 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(linear.at(59), 0.5 * (0.1 + 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(cosine.at(34), 0.5 * (0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5))), 1e-12);
  EXPECT_NEAR(inverse.at(39), 0.5 * std::sqrt(10.0 / 40), 1e-12);
  for (const LearningRate* rate : {&cosine, &linear}) {
    EXPECT_NEAR(rate->at(109), 0.05, 1e-12);
    EXPECT_NEAR(rate->at(5000), 0.05, 1e-12);
  }
  for (const LearningRate* rate : {&cosine, &linear, &inverse}) {
    for (uint64_t n = 9; n < 200; ++n) EXPECT_GE(rate->at(n), rate->at(n + 1));
  }
}

TEST(LearningRate, OfTheReferenceStandsStillOnce) {
  Compat compat;
  compat.reference_lr = true;
  const LearningRate rate(config(LrDecay::kConstant), compat);
  EXPECT_DOUBLE_EQ(rate.at(0), 0.05);
  EXPECT_DOUBLE_EQ(rate.at(1), 0.05);
  EXPECT_DOUBLE_EQ(rate.at(2), 0.1);
  EXPECT_DOUBLE_EQ(rate.at(9), 0.45);
  EXPECT_DOUBLE_EQ(rate.at(10), 0.5);
}

TEST(EmaDecay, WarmsUp) {
  TrainerConfig c;
  c.ema_decay = 0.99;
  EXPECT_DOUBLE_EQ(ema_decay_at(c, 0), 2.0 / 11);
  EXPECT_DOUBLE_EQ(ema_decay_at(c, 8), 10.0 / 19);
  EXPECT_DOUBLE_EQ(ema_decay_at(c, 100000), 0.99);
  c.ema_warmup = false;
  EXPECT_DOUBLE_EQ(ema_decay_at(c, 0), 0.99);
  Compat compat;
  compat.ema_copies = 3;
  EXPECT_EQ(ema_decay_at(c, 2, compat), 0);
  EXPECT_DOUBLE_EQ(ema_decay_at(c, 3, compat), 0.99);
}

}  // namespace
}  // namespace mdm
