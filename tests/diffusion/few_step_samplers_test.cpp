// Samplers for few steps: their order of convergence against an exact solution, agreement with independent
// calculations, and their edges.
#include "mdm/diffusion/few_step_samplers.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "mdm/diffusion/output.h"
#include "mdm/diffusion/prediction.h"
#include "test_model.h"

namespace mdm {
namespace {

using testing::largest_difference;
using testing::random_tensor;
using Levels = std::vector<at::Tensor>;

constexpr SamplerKind kFewStep[] = {SamplerKind::kEuler, SamplerKind::kHeun, SamplerKind::kDpmSolver2M,
                                    SamplerKind::kDpmSolver2MSde, SamplerKind::kUniPc};

SamplerConfig smooth_schedule(PredictionType type, int64_t steps = 4800) {
  SamplerConfig config;
  config.num_diffusion_steps = steps;
  config.schedule_type = ScheduleType::kCosine;
  config.schedule_shifted = true;
  config.prediction_type = type;
  config.threshold_function = ThresholdType::kNone;
  return config;
}

std::unique_ptr<Sampler> sampler_of(SamplerKind kind) {
  SampleConfig config;
  config.sampler = kind;
  return make_sampler(config);
}

// Data N(mean, spread^2) in every pixel: E[x_0 | x_t] in closed form.
constexpr double kMean = 0.3, kSpread = 0.5;

at::Tensor gaussian_x_0(const at::Tensor& x, double gamma) {
  const double signal = kSpread * kSpread * gamma, variance = signal + 1 - gamma;
  return kMean + (x - std::sqrt(gamma) * kMean) * (kSpread * kSpread * std::sqrt(gamma) / variance);
}

ModelCallback gaussian_model(const Schedule& schedule, int64_t* calls = nullptr) {
  return [&schedule, calls](const Levels& x_t, const at::Tensor& times) {
    if (calls != nullptr) ++*calls;
    const auto t = static_cast<size_t>(times[0].item<int64_t>() + 1);
    Levels out;
    for (size_t i = 0; i < x_t.size(); ++i) {
      const double gamma = schedule.gammas(i)[t];
      out.push_back(convert_prediction(gaussian_x_0(x_t[i].to(at::kDouble), gamma), PredictionType::kX0,
                                       schedule.config().prediction_type, x_t[i].to(at::kDouble), gamma)
                        .to(x_t[i].scalar_type()));
    }
    return out;
  };
}

// The state at `to`, in `steps` even steps from `from`, in float64 and without the end of the run (to > 0).
Levels integrated(Sampler& sampler, const Denoiser& denoiser, const Levels& start, int64_t from, int64_t to,
                  int64_t steps) {
  SeededNoise noise({1, 2});
  Levels x = start;
  sampler.begin();
  for (int64_t k = 0; k < steps; ++k) {
    const SamplingStep step{k, steps, from - (from - to) * k / steps, from - (from - to) * (k + 1) / steps};
    x = sampler.step(step, x, denoiser, noise).x_t;
  }
  return x;
}

// Along the probability-flow equation (x - alpha mean) / sqrt(alpha^2 spread^2 + sigma^2) stays as it is.
at::Tensor exact(const at::Tensor& x, double gamma, double gamma_next) {
  const auto width = [](double g) { return std::sqrt(g * kSpread * kSpread + 1 - g); };
  return std::sqrt(gamma_next) * kMean + (x - std::sqrt(gamma) * kMean) * (width(gamma_next) / width(gamma));
}

TEST(FewStepSamplers, ConvergeToTheExactSolutionWithTheirOrder) {
  for (const PredictionType type : {PredictionType::kDdpm, PredictionType::kVPrediction, PredictionType::kX0}) {
    const Schedule schedule(smooth_schedule(type), {4, 1});
    const Denoiser denoiser(schedule, gaussian_model(schedule));
    const int64_t from = 4400, to = 400;
    const Levels start = {random_tensor({1, 3, 8, 8}, 1, at::kDouble), random_tensor({1, 3, 2, 2}, 2, at::kDouble)};
    const std::map<SamplerKind, double> orders = {
        {SamplerKind::kEuler, 1}, {SamplerKind::kHeun, 2}, {SamplerKind::kDpmSolver2M, 2}, {SamplerKind::kUniPc, 2}};
    for (const auto& [kind, order] : orders) {
      for (size_t level = 0; level < 2; ++level) {
        std::vector<double> errors;
        for (const int64_t steps : {40, 80}) {
          const Levels end = integrated(*sampler_of(kind), denoiser, start, from, to, steps);
          const double gamma = schedule.gammas(level)[from], next = schedule.gammas(level)[to];
          errors.push_back(largest_difference(end[level], exact(start[level], gamma, next)));
        }
        const double seen = std::log2(errors[0] / errors[1]);
        EXPECT_GT(seen, order - 0.25) << choice_name(kind) << " level " << level << ": " << errors[0] << ", "
                                      << errors[1];
        if (order > 1) {
          EXPECT_LT(errors[1], 1e-3) << choice_name(kind);
        }
      }
    }
  }
}

TEST(FewStepSamplers, NeedFewerStepsThanEuler) {
  const Schedule schedule(smooth_schedule(PredictionType::kVPrediction), {1});
  const Denoiser denoiser(schedule, gaussian_model(schedule));
  const Levels start = {random_tensor({1, 3, 8, 8}, 1, at::kDouble)};
  const at::Tensor end = exact(start[0], schedule.gammas(0)[4400], schedule.gammas(0)[400]);
  const auto error = [&](SamplerKind kind, int64_t steps) {
    return largest_difference(integrated(*sampler_of(kind), denoiser, start, 4400, 400, steps)[0], end);
  };
  const double euler = error(SamplerKind::kEuler, 100);
  for (const SamplerKind kind : {SamplerKind::kHeun, SamplerKind::kDpmSolver2M, SamplerKind::kUniPc}) {
    EXPECT_LT(error(kind, 20), euler) << choice_name(kind);
  }
}

// x_0 is the same whatever is asked: then every method is exact, and they are DDIM or DDPM.
TEST(FewStepSamplers, AreDdimAndDdpmForAConstantPrediction) {
  const Schedule schedule(smooth_schedule(PredictionType::kX0, 100), {2, 1});
  const Levels images = {random_tensor({2, 3, 8, 8}, 5) * 0.3, random_tensor({2, 3, 4, 4}, 6) * 0.3};
  const Denoiser denoiser(schedule, [&](const Levels&, const at::Tensor&) { return images; });
  const auto states = [&](Sampler& sampler) {
    SeededNoise noise({1, 2});
    SamplingRun run;
    run.batch = 2;
    run.height = run.width = 8;
    run.timesteps = make_timesteps(100, 9, TimestepSpacing::kTrailing);
    Levels all;
    run.after_step = [&](const SamplingStep&, const SampleState& s) {
      all.insert(all.end(), s.x_t.begin(), s.x_t.end());
    };
    run_sampler(sampler, denoiser, noise, run);
    return all;
  };
  DdimSampler ddim(0), ddpm(std::nullopt);
  const Levels deterministic = states(ddim), stochastic = states(ddpm);
  for (const SamplerKind kind : kFewStep) {
    const Levels seen = states(*sampler_of(kind));
    const Levels& wanted = kind == SamplerKind::kDpmSolver2MSde ? stochastic : deterministic;
    ASSERT_EQ(seen.size(), wanted.size());
    for (size_t i = 0; i < seen.size(); ++i) {
      EXPECT_LT(largest_difference(seen[i], wanted[i]), 2e-5) << choice_name(kind) << " state " << i;
    }
  }
}

// From data that are all alike, x_t's distribution must stay the diffusion's own at every step.
TEST(FewStepSamplers, KeepTheVarianceOfGaussianData) {
  const Schedule schedule(smooth_schedule(PredictionType::kVPrediction, 1000), {1});
  const Denoiser denoiser(schedule, gaussian_model(schedule));
  for (const SamplerKind kind : kFewStep) {
    SeededNoise noise({1});
    const auto sampler = sampler_of(kind);
    SamplingRun run;
    run.batch = 1;
    run.height = run.width = 128;
    run.timesteps = make_timesteps(1000, 40, TimestepSpacing::kTrailing);
    run.after_step = [&](const SamplingStep& step, const SampleState& state) {
      const double gamma = schedule.gammas(0)[static_cast<size_t>(step.next)];
      const double wanted = std::sqrt(gamma * kSpread * kSpread + 1 - gamma);
      EXPECT_NEAR(state.x_t[0].std().item<double>(), wanted, 0.03) << choice_name(kind) << " t " << step.next;
      EXPECT_NEAR(state.x_t[0].mean().item<double>(), std::sqrt(gamma) * kMean, 0.03) << choice_name(kind);
    };
    run_sampler(*sampler, denoiser, noise, run);
  }
}

TEST(FewStepSamplers, CallTheModelAsOftenAsTheySay) {
  const Schedule schedule(smooth_schedule(PredictionType::kVPrediction, 100), {1});
  for (const SamplerKind kind : kFewStep) {
    int64_t calls = 0;
    const Denoiser denoiser(schedule, gaussian_model(schedule, &calls));
    SeededNoise noise({1});
    SamplingRun run;
    run.height = run.width = 4;
    run.timesteps = make_timesteps(100, 10, TimestepSpacing::kReference);
    run_sampler(*sampler_of(kind), denoiser, noise, run);
    EXPECT_EQ(calls, kind == SamplerKind::kHeun ? 19 : 10) << choice_name(kind);
  }
}

TEST(FewStepSamplers, StartAfreshEachRun) {
  const Schedule schedule(smooth_schedule(PredictionType::kVPrediction, 100), {2, 1});
  const Denoiser denoiser(schedule, [](const Levels& x_t, const at::Tensor& times) {
    Levels out;
    for (const at::Tensor& x : x_t) out.push_back(at::sin(x * 3) * 0.5 + times.view({-1, 1, 1, 1}) * 0.001);
    return out;
  });
  for (const SamplerKind kind : kFewStep) {
    const auto sampler = sampler_of(kind);
    const auto run_with = [&](Sampler& used, int64_t steps, int64_t first) {
      SeededNoise noise({3});
      SamplingRun run;
      run.height = run.width = 8;
      run.timesteps = make_timesteps(100, steps, TimestepSpacing::kReference);
      run.first_step = first;
      return run_sampler(used, denoiser, noise, run).x_t[0];
    };
    const at::Tensor once = run_with(*sampler, 7, 0);
    EXPECT_TRUE(once.isfinite().all().item<bool>());
    run_with(*sampler, 5, 2);  // begun in the middle, as with init_image
    EXPECT_TRUE(run_with(*sampler, 7, 0).equal(once)) << choice_name(kind);
    EXPECT_TRUE(run_with(*sampler, 1, 0).isfinite().all().item<bool>());
    EXPECT_TRUE(run_with(*sampler, 100, 0).isfinite().all().item<bool>());
  }
}

// A schedule that begins without any signal (gamma 0), and steps that stand still, make no infinities.
TEST(FewStepSamplers, TakeScheduleEnds) {
  SamplerConfig config = smooth_schedule(PredictionType::kVPrediction, 50);
  config.schedule_type = ScheduleType::kDeepFloyd;
  config.rescale_schedule = 1;
  const Schedule schedule(config, {4, 2, 1});
  const Denoiser denoiser(schedule, gaussian_model(schedule));
  for (const SamplerKind kind : kFewStep) {
    SeededNoise noise({1});
    SamplingRun run;
    run.height = run.width = 16;
    run.timesteps = {50, 50, 49, 20, 20, 3, 1, 0};
    const SamplingResult result = run_sampler(*sampler_of(kind), denoiser, noise, run);
    for (const at::Tensor& x : result.x_t) EXPECT_TRUE(x.isfinite().all().item<bool>()) << choice_name(kind);
  }
}

}  // namespace
}  // namespace mdm
