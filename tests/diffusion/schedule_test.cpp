// Noise schedules: properties, and independent formulas. The reference's numbers are in the golden cases.
#include "mdm/diffusion/schedule.h"

#include <cmath>

#include "test_model.h"

namespace mdm {
namespace {

using testing::expect_error;

SamplerConfig schedule_of(ScheduleType type, int64_t steps) {
  SamplerConfig config;
  config.schedule_type = type;
  config.num_diffusion_steps = steps;
  return config;
}

TEST(Schedule, FallsFromOneForEveryType) {
  for (auto type : {ScheduleType::kCosine, ScheduleType::kDdpm, ScheduleType::kDeepFloyd, ScheduleType::kSigmoid}) {
    for (int64_t steps : {2, 3, 10, 1000}) {
      const auto gammas = schedule_gammas(schedule_of(type, steps));
      ASSERT_EQ(gammas.size(), static_cast<size_t>(steps) + 1);
      EXPECT_EQ(gammas[0], 1.0);
      for (size_t i = 1; i < gammas.size(); ++i) {
        EXPECT_LT(gammas[i], gammas[i - 1]) << static_cast<int>(type) << " step " << i;
        EXPECT_GT(gammas[i], 0);
      }
      const Schedule schedule(schedule_of(type, steps));
      for (size_t i = 1; i < gammas.size(); ++i) {
        EXPECT_LT(schedule.gammas()[i], schedule.gammas()[i - 1]) << static_cast<int>(type) << " step " << i;
      }
    }
  }
}

TEST(Schedule, DdpmIsTheProductOfItsAlphas) {
  const auto gammas = schedule_gammas(schedule_of(ScheduleType::kDdpm, 1000));
  long double product = 1;
  for (int n = 1; n <= 1000; ++n) {
    product *= 1 - (1e-4L + (0.02L - 1e-4L) * (n - 1) / 999);
    EXPECT_NEAR(gammas[static_cast<size_t>(n)] / static_cast<double>(product), 1, 1e-12);
  }
}

TEST(Schedule, CosineGoesFromLogSnrFiveToMinusFive) {
  const auto gammas = schedule_gammas(schedule_of(ScheduleType::kCosine, 101));
  const auto log_ratio = [](double g) { return std::log(g / (1 - g)); };
  EXPECT_NEAR(log_ratio(gammas[1]), 5, 1e-9);
  EXPECT_NEAR(log_ratio(gammas[51]), 0, 1e-9);
  EXPECT_NEAR(log_ratio(gammas[101]), -5, 1e-9);
}

TEST(Schedule, DeepFloydIsTheSquaredCosineWhereBetasAreNotCapped) {
  const auto gammas = schedule_gammas(schedule_of(ScheduleType::kDeepFloyd, 100));
  const auto squared_cosine = [](double t) { return std::pow(std::cos((t + .008) / 1.008 * std::acos(-1) / 2), 2); };
  for (size_t n = 1; n < 100; ++n) {
    EXPECT_NEAR(gammas[n], squared_cosine(static_cast<double>(n) / 100) / squared_cosine(0), 1e-12);
  }
  EXPECT_NEAR(gammas[100] / gammas[99], 1 - 0.999, 1e-12);
}

TEST(Schedule, SigmoidFollowsThePaper) {
  // Written with tanh instead of the logistic function: (1 + tanh(x / 2)) / 2 cancels out of the ratio.
  SamplerConfig config = schedule_of(ScheduleType::kSigmoid, 64);
  config.sigmoid_start = 0;
  config.sigmoid_end = 3;
  config.sigmoid_tau = 0.7;
  const auto gammas = schedule_gammas(config);
  const auto level = [&](double t) { return std::tanh((t * 3) / 0.7 / 2); };
  for (size_t n = 1; n < 64; ++n) {
    EXPECT_NEAR(gammas[n], (level(1) - level(static_cast<double>(n) / 64)) / (level(1) - level(0)), 1e-12);
  }
  EXPECT_DOUBLE_EQ(gammas[64], 1e-9);
  EXPECT_NEAR(schedule_gammas(schedule_of(ScheduleType::kSigmoid, 64))[32], 0.5, 1e-12);  // symmetric by default
}

TEST(Schedule, ShiftDividesTheSignalToNoiseRatio) {
  const Schedule plain(schedule_of(ScheduleType::kDeepFloyd, 64));
  SamplerConfig config = schedule_of(ScheduleType::kDeepFloyd, 64);
  config.schedule_shifted = true;
  config.schedule_shifted_power = 2;
  const Schedule nested(config, {16, 4, 1});
  ASSERT_EQ(nested.levels(), 3u);
  EXPECT_EQ(nested.gammas(2), plain.gammas());
  const auto snr = [](double g) { return g / (1 - g); };
  for (size_t n = 1; n <= 64; ++n) {
    EXPECT_NEAR(snr(nested.gammas(1)[n]) / snr(plain.gammas()[n]) * 16, 1, 1e-3);
    EXPECT_NEAR(snr(nested.gammas(0)[n]) / snr(plain.gammas()[n]) * 256, 1, 1e-3);
  }
  for (size_t level = 0; level < 3; ++level) {
    EXPECT_EQ(nested.gammas(level)[0], 1.f);
    EXPECT_EQ(nested.signal_scale(level), 1);
  }
  EXPECT_EQ(nested.loss_weights(), plain.loss_weights());

  config.schedule_shifted = false;
  const Schedule unshifted(config, {16, 4, 1});
  EXPECT_EQ(unshifted.gammas(0), plain.gammas());
  EXPECT_EQ(unshifted.signal_scale(0), 16);
  EXPECT_EQ(unshifted.signal_scale(2), 1);
}

TEST(Schedule, RescaleShiftsTheWholeSchedule) {
  SamplerConfig config = schedule_of(ScheduleType::kCosine, 32);
  const auto gammas = Schedule(config).gammas();
  config.rescale_schedule = 4;
  const Schedule rescaled(config);
  EXPECT_EQ(rescaled.gammas(), shift_gammas(gammas, 4, 1));
  EXPECT_EQ(rescaled.loss_weights(), vdm_loss_weights(rescaled.gammas()));
  config.rescale_schedule = 0.5;  // no factor below 1, as in the reference
  EXPECT_EQ(Schedule(config).gammas(), gammas);
}

TEST(Schedule, LossWeightsAreRatiosOfSignalToNoise) {
  const Schedule schedule(schedule_of(ScheduleType::kCosine, 50));
  const auto snr = [&](size_t n) { return schedule.gammas()[n] / (1.0 - schedule.gammas()[n]); };
  for (size_t n = 2; n <= 50; ++n) EXPECT_NEAR(schedule.loss_weights()[n], snr(n - 1) / snr(n) - 1, 1e-4);
  EXPECT_EQ(schedule.loss_weights()[0], schedule.loss_weights()[2]);
  EXPECT_EQ(schedule.loss_weights()[1], schedule.loss_weights()[2]);
}

TEST(Schedule, SignalScaleOfAPlainModelIsRescaleSignal) {
  SamplerConfig config = schedule_of(ScheduleType::kCosine, 8);
  EXPECT_EQ(Schedule(config).signal_scale(), 1);
  config.rescale_signal = 2.5;
  EXPECT_EQ(Schedule(config).signal_scale(), 2.5);
  EXPECT_EQ(Schedule(config, {2, 1}).signal_scale(1), 1);  // nested models don't use it
}

TEST(Schedule, RefusesSettingsThatGiveNoSchedule) {
  const auto refused = [](SamplerConfig config, const std::string& part) {
    expect_error([&] { Schedule{config}; }, part);
  };
  refused(schedule_of(ScheduleType::kCosine, 1), "num_diffusion_steps is 1");
  SamplerConfig config = schedule_of(ScheduleType::kDdpm, 10);
  config.beta_end = 1;
  refused(config, "beta_end is 1, allowed are numbers in [0, 1)");
  config.beta_end = NAN;
  refused(config, "beta_end is nan");
  config = schedule_of(ScheduleType::kSigmoid, 10);
  config.sigmoid_tau = 0;
  refused(config, "sigmoid_tau is 0");
  config.sigmoid_tau = 1;
  config.sigmoid_start = 3;
  refused(config, "sigmoid_start is 3, it must be below sigmoid_end");
  config = schedule_of(ScheduleType::kCosine, 10);
  config.rescale_signal = 0;
  refused(config, "rescale_signal is 0");
  config.rescale_signal.reset();
  config.rescale_schedule = INFINITY;
  refused(config, "must be finite");
}

}  // namespace
}  // namespace mdm
