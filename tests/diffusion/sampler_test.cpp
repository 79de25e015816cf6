// Sampling: coefficients, properties of whole runs, other methods, and wrong inputs.
#include "mdm/diffusion/sampler.h"

#include <cmath>

#include "mdm/diffusion/output.h"
#include "mdm/diffusion/prediction.h"
#include "test_model.h"

namespace mdm {
namespace {

using testing::expect_error;
using testing::largest_difference;
using testing::random_tensor;
using Levels = std::vector<at::Tensor>;

SamplerConfig sampler_settings(PredictionType type = PredictionType::kVPrediction, int64_t steps = 100) {
  SamplerConfig config;
  config.num_diffusion_steps = steps;
  config.schedule_type = ScheduleType::kDeepFloyd;
  config.prediction_type = type;
  config.threshold_function = ThresholdType::kNone;
  return config;
}

SamplingRun run_of(const Schedule& schedule, int64_t steps, int64_t batch = 2, int64_t side = 8) {
  SamplingRun run;
  run.batch = batch;
  run.height = run.width = side;
  run.timesteps = make_timesteps(schedule.steps(), steps, TimestepSpacing::kReference);
  return run;
}

/// Predicts each row from itself and its time alone.
Levels row_independent(const Levels& x_t, const at::Tensor& times) {
  Levels out;
  const at::Tensor t = times.to(at::kFloat).view({-1, 1, 1, 1}) / 100;
  for (const at::Tensor& x : x_t) out.push_back(at::sin(x * 3) * 0.5 - x * t);
  return out;
}

/// Knows the image: its prediction is exact.
ModelCallback oracle(const Schedule& schedule, const Levels& images) {
  return [&schedule, images](const Levels& x_t, const at::Tensor& times) {
    Levels out;
    const auto t = static_cast<size_t>(times[0].item<int64_t>() + 1);
    for (size_t i = 0; i < x_t.size(); ++i) {
      const at::Tensor x_0 = images[i] / schedule.signal_scale(i);
      out.push_back(convert_prediction(x_0, PredictionType::kX0, schedule.config().prediction_type, x_t[i],
                                       schedule.gammas(i)[t]));
    }
    return out;
  };
}

/// Fails when noise is asked for after the start.
class StartNoiseOnly : public NoiseSource {
 public:
  explicit StartNoiseOnly(std::vector<uint64_t> seeds) : start_(std::move(seeds)) {}
  at::Tensor start(size_t level, at::IntArrayRef shape) override { return start_.start(level, shape); }
  at::Tensor step(int64_t, size_t, at::IntArrayRef) override {
    throw std::logic_error("noise was asked for in a step");
  }

 private:
  SeededNoise start_;
};

/// Hands over the numbers, not the seeds.
class ToldNoise : public NoiseSource {
 public:
  explicit ToldNoise(std::vector<uint64_t> seeds) : seeded_(std::move(seeds)) {}
  at::Tensor start(size_t level, at::IntArrayRef shape) override { return seeded_.start(level, shape); }
  at::Tensor step(int64_t step, size_t level, at::IntArrayRef shape) override {
    return seeded_.step(step, level, shape);
  }

 private:
  SeededNoise seeded_;
};

TEST(StepCoefficients, OfDdpmAreThePosteriorOfThePaper) {  // arXiv 2006.11239, equation 7
  for (const auto& [g, next] : {std::pair(0.2, 0.3), {1e-9, 0.1}, {0.98, 0.99}, {0.5, 1.0}, {0.4, 0.4}}) {
    const StepCoefficients c = step_coefficients(g, next, std::nullopt);
    const double alpha = g / next, beta = 1 - alpha;
    EXPECT_NEAR(c.x_0, std::sqrt(next) * beta / (1 - g), 1e-12);
    EXPECT_NEAR(c.x_t, std::sqrt(alpha) * (1 - next) / (1 - g), 1e-12);
    EXPECT_NEAR(c.noise, std::sqrt(beta * (1 - next) / (1 - g)), 1e-12);
  }
}

TEST(StepCoefficients, KeepTheMarginalForAnyEta) {
  // x_t ~ N(sqrt(g) x_0, 1 - g) must become x_next ~ N(sqrt(next) x_0, 1 - next).
  for (double eta : {0.0, 0.3, 1.0, 2.0, 50.0}) {
    for (const auto& [g, next] : {std::pair(0.2, 0.3), {0.01, 0.9}, {0.5, 1.0}}) {
      const StepCoefficients c = step_coefficients(g, next, eta);
      EXPECT_NEAR(c.x_0 + c.x_t * std::sqrt(g), std::sqrt(next), 1e-12) << eta;
      EXPECT_NEAR(c.x_t * c.x_t * (1 - g) + c.noise * c.noise, 1 - next, 1e-12) << eta;
    }
  }
  EXPECT_EQ(step_coefficients(0.2, 0.3, 0).noise, 0);
}

TEST(RunSampler, FindsTheImageThatTheModelKnows) {
  for (auto type : {PredictionType::kDdpm, PredictionType::kVPrediction, PredictionType::kX0}) {
    for (bool shifted : {false, true}) {
      SamplerConfig config = sampler_settings(type);
      config.schedule_shifted = shifted;
      const Schedule schedule(config, {2, 1});
      const at::Tensor image = at::rand({2, 3, 8, 8}, make_generator(1), at::TensorOptions()) * 2 - 1;
      const Levels images = level_images(image, {2, 1});
      const Denoiser denoiser(schedule, oracle(schedule, images));
      for (std::optional<double> eta :
           {std::optional<double>(), std::optional<double>(0), std::optional<double>(0.7)}) {
        SeededNoise noise({1, 2});
        DdimSampler sampler(eta);
        const SamplingResult result = run_sampler(sampler, denoiser, noise, run_of(schedule, 7));
        ASSERT_EQ(result.x_t.size(), 2u);
        EXPECT_EQ(result.steps_done, 7);
        EXPECT_FALSE(result.cancelled);
        for (size_t i = 0; i < 2; ++i) {
          EXPECT_LT(largest_difference(result.x_t[i], images[i]), 2e-3);
          EXPECT_LT(largest_difference(result.x_0[i], images[i]), 2e-3);
        }
      }
    }
  }
}

// The step that makes its own noise from the seeds gives the bits of the one that is handed the numbers.
TEST(RunSampler, NoiseOfTheStepIsThatOfItsSource) {
  const Schedule schedule(sampler_settings(), {2, 1});
  const Denoiser denoiser(schedule, row_independent);
  DdimSampler sampler(std::nullopt);
  ToldNoise told({5, 6});
  SeededNoise seeded({5, 6});
  const auto a = run_sampler(sampler, denoiser, told, run_of(schedule, 10));
  const auto b = run_sampler(sampler, denoiser, seeded, run_of(schedule, 10));
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(a.x_t[i].equal(b.x_t[i]));
}

TEST(RunSampler, DdimWithoutEtaAsksForNoStepNoise) {
  const Schedule schedule(sampler_settings(), {2, 1});
  const Denoiser denoiser(schedule, row_independent);
  DdimSampler sampler(0);
  StartNoiseOnly quiet({5, 6});
  SeededNoise usual({5, 6});
  const auto a = run_sampler(sampler, denoiser, quiet, run_of(schedule, 10));
  const auto b = run_sampler(sampler, denoiser, usual, run_of(schedule, 10));
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(a.x_t[i].equal(b.x_t[i]));
  DdimSampler ddpm(std::nullopt);
  EXPECT_THROW(run_sampler(ddpm, denoiser, quiet, run_of(schedule, 10)), std::logic_error);
}

TEST(RunSampler, DdpmIsDdimWithEtaOne) {
  const Schedule schedule(sampler_settings());
  const Denoiser denoiser(schedule, row_independent, ThresholdType::kDynamicIf);
  SeededNoise noise({5, 6});
  DdimSampler ddpm(std::nullopt), ddim(1.0);
  const auto a = run_sampler(ddpm, denoiser, noise, run_of(schedule, 10));
  const auto b = run_sampler(ddim, denoiser, noise, run_of(schedule, 10));
  EXPECT_TRUE(a.x_t[0].equal(b.x_t[0]));
}

TEST(RunSampler, MakesTheSameImageWhateverTheBatch) {
  const Schedule schedule(sampler_settings(), {2, 1});
  const Denoiser denoiser(schedule, row_independent, ThresholdType::kDynamic);
  DdimSampler sampler(std::nullopt);
  SeededNoise all({10, 11, 12});
  const auto together = run_sampler(sampler, denoiser, all, run_of(schedule, 12, 3));
  for (int64_t i = 0; i < 3; ++i) {
    SeededNoise one({10 + static_cast<uint64_t>(i)});
    const auto alone = run_sampler(sampler, denoiser, one, run_of(schedule, 12, 1));
    for (size_t level = 0; level < 2; ++level) {
      EXPECT_TRUE(alone.x_t[level].equal(together.x_t[level].narrow(0, i, 1))) << i << " level " << level;
    }
  }
}

TEST(RunSampler, ShowsEachStepAndKeepsItsStates) {
  const Schedule schedule(sampler_settings());
  const Denoiser denoiser(schedule, row_independent);
  DdimSampler sampler(0.5);
  SeededNoise noise({1, 2});
  SamplingRun run = run_of(schedule, 5);
  std::vector<int64_t> before, times;
  std::vector<SampleState> states;
  run.before_step = [&](const SamplingStep& step) { before.push_back(step.index); };
  run.after_step = [&](const SamplingStep& step, const SampleState& state) {
    EXPECT_EQ(before.back(), step.index);
    EXPECT_EQ(step.count, 5);
    EXPECT_EQ(step.next, run.timesteps[static_cast<size_t>(step.index) + 1]);
    times.push_back(step.t);
    states.push_back(state);
  };
  const auto result = run_sampler(sampler, denoiser, noise, run);
  EXPECT_EQ(before, (std::vector<int64_t>{0, 1, 2, 3, 4}));
  times.push_back(0);
  EXPECT_EQ(times, run.timesteps);
  EXPECT_TRUE(states.back().x_t[0].clamp(-1, 1).equal(result.x_t[0]));
  EXPECT_TRUE(states.back().x_0[0].equal(result.x_0[0]));
  EXPECT_FALSE(states[0].x_t[0].equal(states[1].x_t[0]));
}

TEST(RunSampler, CallsTheModelWithTheTimeBelowTheStep) {
  const Schedule schedule(sampler_settings());
  std::vector<int64_t> seen;
  const Denoiser denoiser(schedule, [&](const Levels& x_t, const at::Tensor& times) {
    EXPECT_EQ(times.scalar_type(), at::kLong);
    EXPECT_EQ(times.size(0), 2);
    seen.push_back(times[1].item<int64_t>());
    return x_t;
  });
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  run_sampler(sampler, denoiser, noise, run_of(schedule, 4));
  EXPECT_EQ(seen, (std::vector<int64_t>{80, 60, 39, 19}));
}

TEST(RunSampler, RecordsNoGradients) {
  const Schedule schedule(sampler_settings());
  const at::Tensor weight = at::ones({1}).requires_grad_();
  const Denoiser denoiser(schedule, [&](const Levels& x_t, const at::Tensor&) { return Levels{x_t[0] * weight}; });
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  EXPECT_FALSE(run_sampler(sampler, denoiser, noise, run_of(schedule, 2)).x_t[0].requires_grad());
}

TEST(RunSampler, StopsWhenCancelled) {
  const Schedule schedule(sampler_settings());
  const Denoiser denoiser(schedule, row_independent);
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  SamplingRun run = run_of(schedule, 10);
  std::atomic<bool> cancel{false};
  run.cancel = &cancel;
  at::Tensor last;
  run.after_step = [&](const SamplingStep& step, const SampleState& state) {
    last = state.x_t[0];
    if (step.index == 3) cancel = true;
  };
  const auto result = run_sampler(sampler, denoiser, noise, run);
  EXPECT_TRUE(result.cancelled);
  EXPECT_EQ(result.steps_done, 4);
  EXPECT_TRUE(result.x_t[0].equal(last.clamp(-1, 1)));
  const auto nothing = run_sampler(sampler, denoiser, noise, run);  // still set: before the first step
  EXPECT_TRUE(nothing.cancelled);
  EXPECT_EQ(nothing.steps_done, 0);
  EXPECT_TRUE(nothing.x_0.empty());
}

TEST(RunSampler, OverridesTheThreshold) {
  SamplerConfig config = sampler_settings(PredictionType::kX0);
  const Schedule schedule(config);
  const ModelCallback loud = [](const Levels& x_t, const at::Tensor&) { return Levels{at::full_like(x_t[0], 3)}; };
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  const auto largest = [&](const Denoiser& denoiser) {
    return run_sampler(sampler, denoiser, noise, run_of(schedule, 2)).x_0[0].max().item<double>();
  };
  EXPECT_EQ(largest(Denoiser(schedule, loud)), 3);
  EXPECT_EQ(largest(Denoiser(schedule, loud, ThresholdType::kClip)), 1);
}

TEST(StartImages, WithStrengthZeroComeBack) {
  const Schedule schedule(sampler_settings(), {2, 1});
  const Denoiser denoiser(schedule, row_independent);
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  SamplingRun run = run_of(schedule, 10);
  run.start_images = at::rand({2, 3, 8, 8}, make_generator(4), at::TensorOptions()) * 2 - 1;
  run.first_step = first_step_for_strength(run.timesteps, 0);
  const auto result = run_sampler(sampler, denoiser, noise, run);
  EXPECT_EQ(result.steps_done, 0);
  const Levels expected = level_images(run.start_images, {2, 1});
  for (size_t i = 0; i < 2; ++i) EXPECT_LT(largest_difference(result.x_t[i], expected[i]), 1e-6);
}

TEST(StartImages, WithStrengthOneDrownInNoise) {
  const Schedule schedule(sampler_settings(PredictionType::kVPrediction, 1000));
  at::Tensor first;
  const Denoiser denoiser(schedule, [&](const Levels& x_t, const at::Tensor& times) {
    if (!first.defined()) first = x_t[0];
    return row_independent(x_t, times);
  });
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  SamplingRun run = run_of(schedule, 10);
  run.timesteps = make_timesteps(1000, 10, TimestepSpacing::kTrailing);  // starts at the schedule's end
  run.start_images = random_tensor({2, 3, 8, 8});
  run.first_step = first_step_for_strength(run.timesteps, 1);
  EXPECT_EQ(run_sampler(sampler, denoiser, noise, run).steps_done, 10);
  EXPECT_LT(largest_difference(first, noise.start(0, {2, 3, 8, 8})), 1e-3);
}

TEST(StartImages, AreNoisyAtTheLevelOfTheFirstStep) {
  SamplerConfig config = sampler_settings();  // not shifted: the highest level's images are divided by 2
  const Schedule schedule(config, {2, 1});
  Levels first;
  const Denoiser denoiser(schedule, [&](const Levels& x_t, const at::Tensor& times) {
    if (first.empty()) first = x_t;
    return row_independent(x_t, times);
  });
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  SamplingRun run = run_of(schedule, 10);
  run.start_images = random_tensor({2, 3, 8, 8});
  run.first_step = first_step_for_strength(run.timesteps, 0.5);
  std::vector<int64_t> steps;
  run.before_step = [&](const SamplingStep& step) { steps.push_back(step.index); };
  run_sampler(sampler, denoiser, noise, run);
  EXPECT_EQ(steps, (std::vector<int64_t>{5, 6, 7, 8, 9}));
  const Levels images = level_images(run.start_images, {2, 1});
  for (size_t i = 0; i < 2; ++i) {
    const double gamma = schedule.gammas(i)[static_cast<size_t>(run.timesteps[5])];
    const at::Tensor expected = images[i] * (std::sqrt(gamma) / schedule.signal_scale(i)) +
                                noise.start(i, images[i].sizes()) * std::sqrt(1 - gamma);
    EXPECT_LT(largest_difference(first[i], expected), 1e-6);
  }
}

/// Heun's method for the probability flow: two calls of the model a step.
class HeunSampler : public Sampler {
 public:
  SampleState step(const SamplingStep& step, const Levels& x_t, const Denoiser& denoiser, NoiseSource&) override {
    SampleState out;
    out.x_0 = denoiser.predict(x_t, step.t);
    out.x_t = euler(step, x_t, out.x_0, denoiser);
    if (step.next == 0) return out;
    const Levels corrected = denoiser.predict(out.x_t, step.next);
    // In x / sqrt(gamma) over sigma = sqrt(1 / gamma - 1) the slope is eps = (x / sqrt(gamma) - x_0) / sigma.
    for (size_t i = 0; i < x_t.size(); ++i) {
      const double g = denoiser.schedule().gammas(i)[static_cast<size_t>(step.t)];
      const double n = denoiser.schedule().gammas(i)[static_cast<size_t>(step.next)];
      const double sigma = std::sqrt(1 / g - 1), next = std::sqrt(1 / n - 1);
      const at::Tensor here = (x_t[i] / std::sqrt(g) - out.x_0[i]) / sigma;
      const at::Tensor there = (out.x_t[i] / std::sqrt(n) - corrected[i]) / next;
      out.x_t[i] = (x_t[i] / std::sqrt(g) + (here + there) * ((next - sigma) / 2)) * std::sqrt(n);
    }
    return out;
  }

 private:
  static Levels euler(const SamplingStep& step, const Levels& x_t, const Levels& x_0, const Denoiser& denoiser) {
    Levels out;
    for (size_t i = 0; i < x_t.size(); ++i) {
      const auto& gammas = denoiser.schedule().gammas(i);
      const auto c = step_coefficients(gammas[static_cast<size_t>(step.t)], gammas[static_cast<size_t>(step.next)], 0);
      out.push_back(x_0[i] * c.x_0 + x_t[i] * c.x_t);
    }
    return out;
  }
};

/// DPM-Solver++(2M): one call a step and the prediction of the step before.
class TwoStepSampler : public Sampler {
 public:
  void begin() override { last_.clear(); }
  SampleState step(const SamplingStep& step, const Levels& x_t, const Denoiser& denoiser, NoiseSource&) override {
    SampleState out;
    out.x_0 = denoiser.predict(x_t, step.t);
    const auto half_log_snr = [](double g) { return 0.5 * std::log(g / (1 - g)); };
    Levels history;
    for (size_t i = 0; i < x_t.size(); ++i) {
      const double g = denoiser.schedule().gammas(i)[static_cast<size_t>(step.t)];
      const double n = denoiser.schedule().gammas(i)[static_cast<size_t>(step.next)];
      at::Tensor x_0 = out.x_0[i];
      if (!last_.empty() && step.next != 0) {
        const double h = half_log_snr(n) - half_log_snr(g), r = (half_log_snr(g) - half_log_snr(last_gamma_)) / h;
        x_0 = x_0 * (1 + 0.5 / r) - last_[i] * (0.5 / r);
      }
      const StepCoefficients c = step_coefficients(g, n, 0);
      out.x_t.push_back(x_0 * c.x_0 + x_t[i] * c.x_t);
    }
    last_ = out.x_0;
    last_gamma_ = denoiser.schedule().gammas(0)[static_cast<size_t>(step.t)];
    return out;
  }

 private:
  Levels last_;
  double last_gamma_ = 0;
};

TEST(Sampler, TakesMethodsWithHistoryAndSeveralCalls) {
  // Images are N(0, 0.5^2): the best x_0 and the end of the flow are known in closed form.
  SamplerConfig config = sampler_settings(PredictionType::kX0, 1000);
  config.schedule_type = ScheduleType::kCosine;
  const Schedule schedule(config);
  const double variance = 0.25;
  int calls = 0;
  const Denoiser denoiser(schedule, [&](const Levels& x_t, const at::Tensor& times) {
    ++calls;
    const double g = schedule.gammas()[static_cast<size_t>(times[0].item<int64_t>() + 1)];
    return Levels{x_t[0] * (std::sqrt(g) * variance / (g * variance + 1 - g))};
  });
  SamplingRun run = run_of(schedule, 20);
  run.timesteps.back() = 0;
  const int64_t end = run.timesteps[19];
  const auto error = [&](Sampler& sampler) {
    SeededNoise noise({1, 2});
    at::Tensor x;  // before the last step, which jumps to the mean
    run.after_step = [&](const SamplingStep& step, const SampleState& state) {
      if (step.next == end) x = state.x_t[0];
    };
    run_sampler(sampler, denoiser, noise, run);
    const auto spread = [&](int64_t t) {
      const double g = schedule.gammas()[static_cast<size_t>(t)];
      return std::sqrt(g * variance + 1 - g);
    };
    return largest_difference(x, noise.start(0, {2, 3, 8, 8}) * (spread(end) / spread(run.timesteps[0])));
  };
  DdimSampler ddim(0);
  HeunSampler heun;
  TwoStepSampler two_step;
  const double first_order = error(ddim);
  EXPECT_EQ(calls, 20);
  const double second_order = error(heun);
  EXPECT_EQ(calls, 20 + 39);
  EXPECT_LT(second_order, first_order / 4);
  EXPECT_LT(error(two_step), first_order / 2);
  EXPECT_EQ(error(two_step), error(two_step));  // begin() forgets the run before
}

TEST(MakeSampler, FollowsTheSettings) {
  const Schedule schedule(sampler_settings());
  const Denoiser denoiser(schedule, row_independent);
  const auto image = [&](Sampler& sampler) {
    SeededNoise noise({1, 2});
    return run_sampler(sampler, denoiser, noise, run_of(schedule, 6)).x_t[0];
  };
  SampleConfig config;
  DdimSampler ddpm(std::nullopt), ddim(0), half(0.5);
  config.sampler = SamplerKind::kDdpm;
  EXPECT_TRUE(image(*make_sampler(config)).equal(image(ddpm)));
  config.sampler = SamplerKind::kDdim;
  EXPECT_TRUE(image(*make_sampler(config)).equal(image(ddim)));
  config.ddim_eta = 0.5;
  EXPECT_TRUE(image(*make_sampler(config)).equal(image(half)));
  EXPECT_FALSE(image(half).equal(image(ddim)));
  config.ddim_eta = -0.1;
  expect_error([&] { make_sampler(config); }, "ddim_eta is -0.1");
}

TEST(RunSampler, RefusesWhatCannotWork) {
  const Schedule schedule(sampler_settings(), {4, 1});
  const Denoiser denoiser(schedule, row_independent);
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  const SamplingRun good = run_of(schedule, 3);
  const auto refused = [&](SamplingRun run, const std::string& part) {
    expect_error<Error>([&] { run_sampler(sampler, denoiser, noise, run); }, part);
  };
  SamplingRun run = good;
  run.width = 10;
  refused(run, "pictures of 8 x 10 can't be sampled: both must be multiples of 4");
  run = good;
  run.timesteps = {50, 60, 0};
  refused(run, "timesteps must fall from at most 100 to 0");
  run.timesteps = {101, 0};
  refused(run, "timesteps must fall");
  run.timesteps = {50, 20};
  refused(run, "timesteps must fall");
  run.timesteps = {};
  refused(run, "timesteps must fall");
  run = good;
  run.first_step = 3;
  refused(run, "the first step is 3, allowed are numbers from 0 to 2");
  run = good;
  run.start_images = at::zeros({1, 3, 8, 8});
  refused(run, "the pictures to start from are [1, 3, 8, 8], but [2, 3, 8, 8] are needed");
  run = good;
  run.batch = 3;
  refused(run, "there are 2 seeds for a batch of 3 images");

  const Denoiser one_level(schedule, [](const Levels& x_t, const at::Tensor&) { return Levels{x_t[0]}; });
  expect_error<Error>([&] { run_sampler(sampler, one_level, noise, good); },
                      "predicts 1 levels, but the sampler has 2");
  const Denoiser wrong(schedule, [](const Levels& x_t, const at::Tensor&) { return Levels{x_t[1], x_t[1]}; });
  expect_error<Error>([&] { run_sampler(sampler, wrong, noise, good); }, "prediction at level 0 is [2, 3, 2, 2]");
}

TEST(RunSampler, RefusesSchedulesWithoutSignalOrNoise) {
  SamplerConfig config = sampler_settings(PredictionType::kDdpm, 1000);
  config.schedule_type = ScheduleType::kDdpm;
  config.beta_end = 0.9;  // float32 underflows
  const Schedule schedule(config);
  ASSERT_EQ(schedule.gammas().back(), 0.f);
  DdimSampler sampler(0);
  SeededNoise noise({1, 2});
  expect_error([&] { run_sampler(sampler, Denoiser(schedule, row_independent), noise, run_of(schedule, 1000)); },
               "its signal level at step 1000 of level 0 is 0");
  config.prediction_type = PredictionType::kVPrediction;  // needs no signal
  const Schedule for_v(config);
  EXPECT_TRUE(run_sampler(sampler, Denoiser(for_v, row_independent), noise, run_of(for_v, 100))
                  .x_t[0]
                  .isfinite()
                  .all()
                  .item<bool>());
  config.beta_start = 0;  // no noise in the first step
  const Schedule quiet(config);
  expect_error([&] { run_sampler(sampler, Denoiser(quiet, row_independent), noise, run_of(quiet, 1000)); },
               "its signal level at step 1 of level 0 is 1");
}

}  // namespace
}  // namespace mdm
