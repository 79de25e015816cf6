// Classifier-free guidance on tiny models.
#include "mdm/diffusion/guidance.h"

#include <set>

#include "test_model.h"

namespace mdm {
namespace {

using testing::expect_error;
using testing::largest_difference;
using testing::random_tensor;
using testing::random_text;
using testing::tiny_model;
using Levels = std::vector<at::Tensor>;

/// A model, a batch of two, and what it predicts without and with the prompts.
struct Setting {
  explicit Setting(size_t levels) : model(tiny_model(levels)) {
    for (size_t i = 0; i < levels; ++i) {
      const int64_t side = int64_t{8} << (levels - 1 - i);
      x_t.push_back(random_tensor({2, 3, side, side}, 40 + i));
    }
    conditioning = condition_pairs(*model, &text, {}, 2);
    unconditional = model->forward(x_t, times, conditioning.rows(0, 2));
    conditional = model->forward(x_t, times, conditioning.rows(2, 2));
  }
  Levels guided(const GuidanceOptions& options) {
    GuidedModel model_with_guidance(*model, conditioning, options);
    return model_with_guidance(x_t, times);
  }

  const at::NoGradGuard no_grad;
  std::shared_ptr<UNet> model;
  TextEmbedding text = random_text(4);
  Levels x_t, unconditional, conditional;
  at::Tensor times = at::tensor({30, 700}, at::kLong);
  Conditioning conditioning;
};

GuidanceOptions with_scale(double scale) {
  GuidanceOptions options;
  options.scale = scale;
  return options;
}

TEST(Guidance, OfOneIsTheConditionalPrediction) {
  for (size_t levels : {1, 2, 3}) {
    Setting s(levels);
    TextEmbedding prompts;
    prompts.lm_outputs = s.text.lm_outputs.narrow(0, 2, 2);
    prompts.lm_mask = s.text.lm_mask.narrow(0, 2, 2);
    GuidedModel single(*s.model, s.model->condition(&prompts, {}, 2), with_scale(1));
    const Levels a = s.guided(with_scale(1)), b = single(s.x_t, s.times);
    for (size_t i = 0; i < levels; ++i) {
      EXPECT_LT(largest_difference(a[i], s.conditional[i]), 1e-5);
      EXPECT_LT(largest_difference(b[i], s.conditional[i]), 1e-5);
    }
  }
}

TEST(Guidance, GoesFromTheUnconditionalPredictionOnAtEveryLevel) {
  for (size_t levels : {1, 3}) {
    Setting s(levels);
    for (double scale : {0.0, 0.5, 7.5}) {
      const Levels out = s.guided(with_scale(scale));
      ASSERT_EQ(out.size(), levels);
      for (size_t i = 0; i < levels; ++i) {
        EXPECT_GT(largest_difference(s.conditional[i], s.unconditional[i]), 1e-3);  // else nothing is tested
        EXPECT_LT(largest_difference(out[i], s.unconditional[i] + (s.conditional[i] - s.unconditional[i]) * scale),
                  1e-4);
      }
    }
  }
}

TEST(Guidance, RescaleBringsTheStandardDeviationBack) {
  Setting s(2);
  GuidanceOptions options = with_scale(5);
  const Levels plain = s.guided(options);
  options.rescale = 1;
  const Levels full = s.guided(options);
  options.rescale = 0.7;
  const Levels part = s.guided(options);
  for (size_t i = 0; i < 2; ++i) {
    const at::Tensor wanted = s.conditional[i].std({1, 2, 3});
    EXPECT_GT(largest_difference(plain[i].std({1, 2, 3}), wanted), 1e-3);
    EXPECT_LT(largest_difference(full[i].std({1, 2, 3}), wanted), 1e-4);
    EXPECT_LT(largest_difference(part[i], full[i] * 0.7 + plain[i] * 0.3), 1e-4);
  }
}

TEST(Guidance, ActsInItsIntervalOnly) {
  Setting s(2);
  GuidanceOptions options = with_scale(4);
  const Levels everywhere = s.guided(options);
  options.start = 0.2;
  options.end = 0.6;
  GuidedModel guided(*s.model, s.conditioning, options);
  for (int64_t i = 0; i < 10; ++i) {
    guided.begin_step({i, 10, 100 - i, 99 - i});
    const Levels out = guided(s.x_t, s.times);
    const bool inside = i >= 2 && i < 6;
    EXPECT_LT(largest_difference(out[0], inside ? everywhere[0] : s.conditional[0]), 1e-5) << i;
  }
  options.end = 1;
  GuidedModel to_the_end(*s.model, s.conditioning, options);
  to_the_end.begin_step({9, 10, 1, 0});
  EXPECT_LT(largest_difference(to_the_end(s.x_t, s.times)[0], everywhere[0]), 1e-6);
}

TEST(Guidance, UsesMicrosForBothHalves) {
  Setting s(1);
  const at::Tensor scale = at::tensor({20.f, 50.f});
  const Conditioning once = condition_pairs(*s.model, &s.text, {{"scale", scale}}, 2);
  const Conditioning twice = condition_pairs(*s.model, &s.text, {{"scale", at::cat({scale, scale})}}, 2);
  ASSERT_TRUE(once.micro[0].defined());
  EXPECT_TRUE(once.micro[0].equal(twice.micro[0]));
  EXPECT_TRUE(once.micro[0].narrow(0, 0, 2).equal(once.micro[0].narrow(0, 2, 2)));
  EXPECT_FALSE(once.micro[0].equal(s.conditioning.micro[0]));
  expect_error<Error>(
      [&] {
        condition_pairs(*s.model, &s.text, {{"scale", at::ones({3})}}, 2);
      },
      "'scale' has 3 values");
}

TEST(Guidance, BoundsTheOutputOfPlainModelsOnly) {
  Setting plain(1), nested(2);
  GuidanceOptions options = with_scale(3);
  options.output_scale = 0.5;
  const auto bounded = [](const at::Tensor& x) { return at::tanh(x / 0.5) * 0.5; };
  const at::Tensor u = bounded(plain.unconditional[0]), c = bounded(plain.conditional[0]);
  EXPECT_LT(largest_difference(plain.guided(options)[0], u + (c - u) * 3), 1e-5);
  EXPECT_LT(largest_difference(nested.guided(options)[0], nested.guided(with_scale(3))[0]), 1e-6);
}

TEST(Guidance, PassesProbesThrough) {
  class Names : public Probe {
   public:
    bool wants(const std::string& name) override { return name.find("conv_in") != std::string::npos; }
    void on_tensor(const std::string& name, const at::Tensor& value) override {
      seen.insert(name);
      rows = value.size(0);
    }
    std::set<std::string> seen;
    int64_t rows = 0;
  };
  Setting s(2);
  Names names;
  ForwardContext context;
  context.probe = &names;
  GuidedModel guided(*s.model, s.conditioning, with_scale(2), context);
  guided(s.x_t, s.times);
  EXPECT_EQ(names.seen, (std::set<std::string>{"0.conv_in", "1.conv_in"}));
  EXPECT_EQ(names.rows, 4);  // one batch for both halves
}

TEST(Guidance, WorksAsACallbackOfTheSampler) {
  Setting s(2);
  SamplerConfig config;
  config.num_diffusion_steps = 50;
  config.prediction_type = PredictionType::kVPrediction;
  const Schedule schedule(config, {2, 1});
  GuidedModel guided(*s.model, s.conditioning, with_scale(2));
  const Denoiser denoiser(schedule, guided.callback());
  SeededNoise noise({1, 2});
  DdimSampler sampler(0);
  SamplingRun run;
  run.batch = 2;
  run.height = run.width = 16;
  run.timesteps = make_timesteps(50, 3, TimestepSpacing::kTrailing);
  run.before_step = [&](const SamplingStep& step) { guided.begin_step(step); };
  const auto result = run_sampler(sampler, denoiser, noise, run);
  EXPECT_EQ(result.x_t[0].sizes(), at::IntArrayRef({2, 3, 16, 16}));
  EXPECT_EQ(result.x_t[1].sizes(), at::IntArrayRef({2, 3, 8, 8}));
  EXPECT_TRUE(result.x_t[0].isfinite().all().item<bool>());
}

TEST(Guidance, RefusesOptionsOutOfRange) {
  Setting s(1);
  const auto refused = [&](const GuidanceOptions& options, const std::string& part) {
    expect_error([&] { GuidedModel(*s.model, s.conditioning, options); }, part);
  };
  GuidanceOptions options;
  options.scale = NAN;
  refused(options, "guidance_scale is nan");
  options = {};
  options.rescale = 1.5;
  refused(options, "guidance_rescale is 1.5, allowed are numbers from 0 to 1");
  options = {};
  options.start = 0.5;
  options.end = 0.5;
  refused(options, "guidance acts from 0.5 to 0.5");

  GuidedModel guided(*s.model, s.conditioning.rows(0, 2), with_scale(2));
  expect_error<Error>([&] { guided(s.x_t, s.times); },
                      "guidance needs 4 rows of conditioning for 2 images, but there are 2");
  GuidedModel single(*s.model, s.conditioning.rows(0, 3), with_scale(1));
  expect_error<Error>([&] { single(s.x_t, s.times); }, "the conditioning has 3 rows for a batch of 2 images");
}

TEST(Guidance, NeedsSomethingToGuideBy) {
  ModelConfig config = testing::tiny_config(1);
  config.levels[0].micro_conditioning.clear();
  const auto model = make_model(config, -1);
  expect_error([&] { GuidedModel(*model, model->condition(nullptr, {}, 2), with_scale(2)); },
               "the model has no conditioning: only guidance_scale 1 is possible");
}

}  // namespace
}  // namespace mdm
