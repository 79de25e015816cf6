// Losses: perfect predictions, sums over parts of a batch, mixed levels, and settings that don't fit.
#include "mdm/diffusion/loss.h"

#include <cmath>

#include "mdm/diffusion/noise.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/prediction.h"
#include "test_model.h"

namespace mdm {
namespace {

using testing::expect_error;
using testing::largest_difference;
using testing::random_tensor;
using testing::tiny_config;
using Levels = std::vector<at::Tensor>;

DiffusionConfig loss_settings(bool vdm = false) {
  DiffusionConfig config;
  config.sampler_config.num_diffusion_steps = 50;
  config.sampler_config.schedule_type = ScheduleType::kCosine;
  config.sampler_config.prediction_type = PredictionType::kVPrediction;
  config.use_vdm_loss_weights = vdm;
  config.use_double_loss = true;
  return config;
}

/// Inputs of a batch of six, for one or more levels; 8 pixels at the lowest.
struct Batch {
  explicit Batch(size_t levels) {
    const int64_t side = int64_t{8} << (levels - 1);
    images = random_tensor({6, 3, side, side}, 1).clamp(-1, 1);
    for (size_t i = 0; i < levels; ++i) noise.push_back(random_tensor({6, 3, side >> i, side >> i}, 20 + i));
  }
  at::Tensor images, times = at::tensor({0, 5, 17, 30, 42, 49}, at::kLong);
  Levels noise;
};

/// Stands for a model: something of the right shape that depends on its input.
Levels predictions_for(const TrainingInputs& inputs) {
  Levels out;
  for (const at::Tensor& x : inputs.x_t) out.push_back(at::sin(x * 2) + 0.1);
  return out;
}

TEST(Loss, OfPerfectPredictionsIsZero) {
  for (size_t levels : {1, 2}) {
    const Batch batch(levels);
    for (PredictionType type : testing::kPredictionTypes) {
      for (PredictionType target : testing::kPredictionTypes) {
        for (bool shifted : {false, true}) {
          DiffusionConfig config = loss_settings();
          config.sampler_config.prediction_type = type;
          config.sampler_config.loss_target_type = target;
          config.sampler_config.schedule_shifted = shifted;
          config.sampler_config.rescale_signal = 2;
          const DiffusionLoss loss(config, tiny_config(levels));
          const TrainingInputs inputs = loss.prepare(batch.images, batch.times, batch.noise);
          const Levels images = level_images(batch.images, loss.schedule().scales());
          Levels perfect;
          for (size_t i = 0; i < levels; ++i) {
            perfect.push_back(
                prediction_target(type, images[i] / loss.schedule().signal_scale(i), batch.noise[i], inputs.gammas[i]));
          }
          EXPECT_LT(loss(inputs, perfect).mean().item<double>(), 1e-9);
        }
      }
    }
  }
}

TEST(Loss, EqualsItsDefinition) {
  const Batch batch(1);
  const DiffusionLoss loss(loss_settings(/*vdm=*/true), tiny_config(1));
  const TrainingInputs inputs = loss.prepare(batch.images, batch.times, batch.noise);
  const Levels predictions = predictions_for(inputs);
  double sum = 0, weight = 0;
  for (int64_t i = 0; i < 6; ++i) {
    const auto n = static_cast<size_t>(batch.times[i].item<int64_t>() + 1);
    const double g = loss.schedule().gammas()[n], w = loss.schedule().loss_weights()[n];
    const at::Tensor x_t = batch.images[i] * std::sqrt(g) + batch.noise[0][i] * std::sqrt(1 - g);
    EXPECT_LT(largest_difference(inputs.x_t[0][i], x_t), 1e-6);
    const at::Tensor v = batch.noise[0][i] * std::sqrt(g) - batch.images[i] * std::sqrt(1 - g);
    sum += w * (predictions[0][i] - v).square().mean().item<double>();
    weight += w;
  }
  const LossValue value = loss(inputs, predictions);
  EXPECT_NEAR(value.sum.item<double>() / sum, 1, 1e-5);
  EXPECT_NEAR(value.weight.item<double>() / weight, 1, 1e-5);
  EXPECT_NEAR(value.mean().item<double>(), sum / weight, 1e-5);
  EXPECT_EQ(value.per_example.size(0), 6);
  EXPECT_EQ(value.per_level.size(), 1u);
}

TEST(Loss, IsASumOverPartsOfTheBatch) {
  for (bool vdm : {false, true}) {
    DiffusionConfig config = loss_settings(vdm);
    config.mixed_ratio = {2, 1, 1};  // 3, 4 and 6 of 6 rows
    config.multi_res_weights = {4, 2, 1};
    const DiffusionLoss loss(config, tiny_config(3));
    const Batch batch(3);
    const TrainingInputs whole = loss.prepare(batch.images, batch.times, batch.noise);
    EXPECT_EQ(loss.rows(6), (std::vector<int64_t>{3, 4, 6}));
    const LossValue expected = loss(whole, predictions_for(whole));
    for (const std::vector<int64_t>& parts : {std::vector<int64_t>{3, 3}, {1, 1, 1, 1, 1, 1}, {4, 2}, {2, 3, 1}}) {
      double sum = 0, weight = 0;
      int64_t first = 0;
      std::vector<at::Tensor> examples;
      for (int64_t rows : parts) {
        Levels noise;
        for (const at::Tensor& level : batch.noise) noise.push_back(level.narrow(0, first, rows));
        const TrainingInputs part =
            loss.prepare(batch.images.narrow(0, first, rows), batch.times.narrow(0, first, rows), noise, {first, 6});
        const LossValue value = loss(part, predictions_for(part));
        sum += value.sum.item<double>();
        weight += value.weight.item<double>();
        examples.push_back(value.per_example);
        first += rows;
      }
      EXPECT_NEAR(sum / expected.sum.item<double>(), 1, 1e-5);
      EXPECT_NEAR(weight / expected.weight.item<double>(), 1, 1e-5);
      EXPECT_LT(largest_difference(at::cat(examples), expected.per_example), 1e-5);
    }
  }
}

TEST(Loss, OfAMixedBatchCountsEachLevelAsAFullBatch) {
  DiffusionConfig config = loss_settings();
  config.mixed_ratio = {2, 1};
  const DiffusionLoss loss(config, tiny_config(2));
  const Batch batch(2);
  const TrainingInputs inputs = loss.prepare(batch.images, batch.times, batch.noise);
  ASSERT_EQ(inputs.x_t[0].size(0), 4);
  ASSERT_EQ(inputs.x_t[1].size(0), 6);
  const LossValue value = loss(inputs, predictions_for(inputs));
  const double expected = value.per_level[0].sum().item<double>() * 1.5 + value.per_level[1].sum().item<double>();
  EXPECT_NEAR(value.sum.item<double>(), expected, 1e-4);
  EXPECT_EQ(value.weight.item<double>(), 6);
  EXPECT_LT(largest_difference(value.per_example.narrow(0, 4, 2), value.per_level[1].narrow(0, 4, 2)), 1e-6);
}

TEST(Loss, CountsLowerLevelsOnlyWithDoubleLoss) {
  const Batch batch(2);
  for (bool twice : {true, false}) {
    DiffusionConfig config = loss_settings();
    config.use_double_loss = twice;
    const DiffusionLoss loss(config, tiny_config(2));
    const TrainingInputs inputs = loss.prepare(batch.images, batch.times, batch.noise);
    Levels predictions = predictions_for(inputs);
    for (at::Tensor& p : predictions) p.requires_grad_();
    const LossValue value = loss(inputs, predictions);
    value.sum.backward();
    EXPECT_TRUE(predictions[0].grad().defined());
    EXPECT_EQ(predictions[1].grad().defined(), twice);
    ASSERT_EQ(value.per_level.size(), 2u);  // for the log in any case
    EXPECT_GT(value.per_level[1].sum().item<double>(), 0);
  }
}

TEST(Loss, HasTheGradientOfItsDefinition) {
  DiffusionConfig config = loss_settings(/*vdm=*/true);
  config.sampler_config.loss_target_type = PredictionType::kDdpm;
  config.model_output_scale = 2;
  const DiffusionLoss loss(config, tiny_config(1));
  const Batch batch(1);
  const TrainingInputs inputs = loss.prepare(batch.images, batch.times, batch.noise);
  const at::Tensor predictions = predictions_for(inputs)[0].requires_grad_();
  loss(inputs, {predictions}).sum.backward();
  const at::Tensor direction = random_tensor(predictions.sizes(), 77);
  const auto along = [&](double h) {
    const c10::NoGradGuard no_grad;
    return loss(inputs, {predictions.detach() + direction * h}).sum.item<double>();
  };
  const double expected = (predictions.grad() * direction).sum().item<double>();
  EXPECT_NEAR((along(1e-2) - along(-1e-2)) / 2e-2 / expected, 1, 5e-3);
}

TEST(Loss, WithSampleWeightsLeavesHoles) {
  const DiffusionLoss loss(loss_settings(), tiny_config(2));
  const Batch batch(2);
  const at::Tensor weights = at::tensor({1.f, 0.f, 1.f, 1.f, 1.f, 1.f});
  const TrainingInputs all = loss.prepare(batch.images, batch.times, batch.noise);
  const TrainingInputs holes = loss.prepare(batch.images, batch.times, batch.noise, {}, weights);
  const LossValue a = loss(all, predictions_for(all)), b = loss(holes, predictions_for(holes));
  EXPECT_NEAR(b.sum.item<double>(), a.sum.item<double>() - a.per_example[1].item<double>(), 1e-4);
  EXPECT_EQ(b.weight.item<double>(), 5);
}

TEST(Loss, TargetsComeFromTheRescaledImages) {
  DiffusionConfig config = loss_settings();
  config.sampler_config.rescale_signal = 2;
  const Batch batch(1);
  const DiffusionLoss loss(config, tiny_config(1));
  Compat compat;
  compat.unscaled_targets = true;
  const DiffusionLoss as_reference(config, tiny_config(1), at::kCPU, compat);
  const TrainingInputs right = loss.prepare(batch.images, batch.times, batch.noise);
  const TrainingInputs reference = as_reference.prepare(batch.images, batch.times, batch.noise);
  EXPECT_TRUE(right.x_t[0].equal(reference.x_t[0]));
  EXPECT_LT(largest_difference(convert_prediction(right.targets[0], PredictionType::kVPrediction, PredictionType::kX0,
                                                  right.x_t[0], right.gammas[0]),
                               batch.images / 2),
            1e-5);
  EXPECT_GT(largest_difference(right.targets[0], reference.targets[0]), 0.1);
}

TEST(Loss, BoundsTheOutputOfPlainModelsOnly) {
  DiffusionConfig config = loss_settings();
  const Batch batch(1), nested_batch(2);
  const DiffusionLoss without(config, tiny_config(1)), nested_without(config, tiny_config(2));
  config.model_output_scale = 0.5;
  const DiffusionLoss with(config, tiny_config(1)), nested_with(config, tiny_config(2));
  const TrainingInputs inputs = with.prepare(batch.images, batch.times, batch.noise);
  const at::Tensor raw = predictions_for(inputs)[0];
  EXPECT_NEAR(with(inputs, {raw}).mean().item<double>(),
              without(inputs, {at::tanh(raw / 0.5) * 0.5}).mean().item<double>(), 1e-6);
  const TrainingInputs nested = nested_with.prepare(nested_batch.images, nested_batch.times, nested_batch.noise);
  const Levels predictions = predictions_for(nested);
  EXPECT_EQ(nested_with(nested, predictions).sum.item<double>(),
            nested_without(nested, predictions).sum.item<double>());
}

TEST(MixedRatio, IsCutAsTheReferenceCutsIt) {
  EXPECT_EQ(level_rows(cumulative_ratio({3, 2}, 2), 2, 6), (std::vector<int64_t>{3, 6}));  // int(0.6 * 6)
  EXPECT_EQ(level_rows(cumulative_ratio({2, 1}, 2), 2, 4), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(level_rows(cumulative_ratio({1, 1, 2}, 3), 3, 4), (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(level_rows({}, 3, 5), (std::vector<int64_t>{5, 5, 5}));
}

TEST(MixedRatio, RefusesEmptyLevelsAndWrongNumbers) {
  expect_error(
      [] {
        level_rows(cumulative_ratio({1, 3}, 2), 2, 3);
      },
      "leaves level 0 (0 = highest resolution) without any of the 3 images");
  expect_error([] { level_rows(cumulative_ratio({1, 3}, 2), 2, 3); }, "at least 4 images");
  expect_error([] { cumulative_ratio({1, 2}, 3); }, "mixed_ratio has 2 numbers, but the model has 3 levels");
  expect_error([] { cumulative_ratio({1, 0}, 2); }, "mixed_ratio holds 0; all must be above 0");
  expect_error([] { cumulative_ratio({1, NAN}, 2); }, "mixed_ratio holds nan");
}

TEST(Loss, RefusesSettingsThatDontFit) {
  const auto refused = [](const DiffusionConfig& config, size_t levels, const std::string& part) {
    expect_error([&] { DiffusionLoss(config, tiny_config(levels)); }, part);
  };
  DiffusionConfig config = loss_settings();
  config.multi_res_weights = {4, 1};
  refused(config, 3, "multi_res_weights has 2 numbers, but the model has 3 levels");
  config.use_double_loss = false;
  refused(config, 2, "multi_res_weights has no meaning without use_double_loss");
  config = loss_settings();
  config.no_use_residual = false;
  refused(config, 2, "no_use_residual");
  config = loss_settings(/*vdm=*/true);
  config.sampler_config.schedule_type = ScheduleType::kDdpm;
  config.sampler_config.num_diffusion_steps = 1000;
  config.sampler_config.beta_end = 0.9;
  refused(config, 1, "use_vdm_loss_weights can't be used with this noise schedule: the weight of step");
}

TEST(Loss, RefusesTensorsThatDontFit) {
  const DiffusionLoss loss(loss_settings(), tiny_config(2));
  const Batch batch(2);
  expect_error<Error>([&] { loss.prepare(batch.images, batch.times.narrow(0, 0, 5), batch.noise); },
                      "there are 5 times for 6 images");
  expect_error<Error>([&] { loss.prepare(batch.images, batch.times, {batch.noise[0]}); }, "noise for 1 levels");
  expect_error<Error>(
      [&] {
        loss.prepare(batch.images, batch.times, {batch.noise[0], batch.noise[0]});
      },
      "the noise of level 1 is [6, 3, 16, 16]");
  expect_error<Error>([&] { loss.rows(4, {3, 6}); }, "rows 3 to 7 are no part of a batch of 6");
  const TrainingInputs inputs = loss.prepare(batch.images, batch.times, batch.noise);
  expect_error<Error>([&] { loss(inputs, {inputs.x_t[0]}); }, "predicts 1 levels instead of 2");
  expect_error<Error>([&] { loss(inputs, {inputs.x_t[0], inputs.x_t[0]}); }, "prediction at level 1 is [6, 3, 16, 16]");
}

TEST(Loss, TakesWhatTheHelpersDraw) {
  const DiffusionLoss loss(loss_settings(), tiny_config(2));
  const TrainingDraw draw{3, 0, 12};
  const std::vector<uint64_t> samples = {5, 9, 14};
  const at::Tensor images = random_tensor({3, 3, 16, 16});
  const TrainingInputs inputs =
      loss.prepare(images, draw_times(draw, samples, loss.schedule().steps()),
                   {draw_noise(draw, samples, 0, {3, 16, 16}), draw_noise(draw, samples, 1, {3, 8, 8})});
  EXPECT_TRUE(inputs.x_t[0].isfinite().all().item<bool>());
  EXPECT_EQ(inputs.x_t[1].sizes(), at::IntArrayRef({3, 3, 8, 8}));
}

}  // namespace
}  // namespace mdm
