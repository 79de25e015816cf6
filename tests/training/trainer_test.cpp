// The trainer: accumulation, gradient checkpointing, what is frozen or unused, precision, and resuming.
#include "mdm/training/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

struct AccumulationCase {
  const char* name;
  bool nested;
  Overrides settings;
  bool hole;
};

class Accumulation : public ::testing::TestWithParam<AccumulationCase> {};

// Four batches of 8 must be one of 32: the same loss, and gradients that differ by rounding alone.
TEST_P(Accumulation, FourTimesEightIsThirtyTwo) {
  const AccumulationCase& setup = GetParam();
  std::vector<double> losses[2];
  std::vector<at::Tensor> gradients[2];
  for (const bool split : {false, true}) {
    Config config = tiny_config(setup.nested, setup.settings);
    config.trainer.batch_size = split ? 8 : 32;
    config.trainer.num_gradient_accumulations = split ? 4 : 1;
    ToyRun run(config);
    if (setup.hole) run.data.broken = {3, 9, 40};
    const auto trainer = run.make_trainer();
    for (int step = 0; step < 3; ++step) {
      losses[split].push_back(trainer->step().loss);
      if (step == 0) gradients[split] = copies(trainer->arena().gradients());
    }
    EXPECT_EQ(trainer->state().samples, setup.hole ? 93U : 96U);
  }
  for (size_t i = 0; i < losses[0].size(); ++i) EXPECT_NEAR(losses[1][i], losses[0][i], 1e-5 * losses[0][i]);
  EXPECT_LT(worst_difference(gradients[1], gradients[0]), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Accumulation,
    ::testing::Values(AccumulationCase{"plain", false, {}, false}, AccumulationCase{"plain_hole", false, {}, true},
                      AccumulationCase{"plain_vdm", false, {{"use_vdm_loss_weights", "true"}}, true},
                      AccumulationCase{"nested", true, kBothLevels, false},
                      AccumulationCase{
                          "nested_mixed_vdm_hole",
                          true,
                          {{"use_double_loss", "true"}, {"mixed_ratio", "2:1"}, {"use_vdm_loss_weights", "true"}},
                          true},
                      AccumulationCase{"nested_highest_only", true, {{"mixed_ratio", "1:3"}}, false}),
    [](const auto& test) { return std::string(test.param.name); });

class Checkpointed : public ::testing::TestWithParam<bool> {};

TEST_P(Checkpointed, GradientsAreTheSameWithDropout) {
  std::vector<at::Tensor> gradients[2];
  double losses[2] = {};
  for (const bool recompute : {false, true}) {
    Config config = tiny_config(GetParam(), GetParam() ? kHalfMixed : Overrides());
    config.trainer.gradient_checkpointing = recompute;
    ToyRun run(config, /*learned_text=*/true);
    const auto trainer = run.make_trainer();
    losses[recompute] = trainer->step().loss;
    gradients[recompute] = copies(trainer->arena().gradients());
  }
  EXPECT_EQ(losses[0], losses[1]);
  for (const at::Tensor& gradient : gradients[0]) EXPECT_GT(gradient.abs().max().item<float>(), 0);
  // What a tensor gets from several places is added up in another order.
  EXPECT_LT(worst_difference(gradients[1], gradients[0]), 3e-6);
}

INSTANTIATE_TEST_SUITE_P(Models, Checkpointed, ::testing::Bool());

TEST(Trainer, LossFallsInFloat32AndBfloat16) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    Config config = tiny_config();
    config.runtime.precision = precision;
    config.trainer.batch_size = 8;
    config.trainer.lr = 0.005;
    ToyRun run(config);
    run.data.fixed_samples = 8;
    const auto trainer = run.make_trainer();
    double first = 0, last = 0;
    for (int step = 0; step < 120; ++step) {
      const StepReport report = trainer->step();
      ASSERT_TRUE(report.updated);
      if (step < 20) first += report.loss;
      if (step >= 100) last += report.loss;
    }
    EXPECT_LT(last, 0.7 * first) << choice_name(precision);
  }
}

// bfloat16 computes other numbers, but not other pictures: its gradients point where those of float32 do.
TEST(Trainer, GradientsOfBfloat16AreNearThoseOfFloat32) {
  std::vector<at::Tensor> gradients[2];
  for (const bool half : {false, true}) {
    Config config = tiny_config(true, kBothLevels);
    config.runtime.precision = half ? Precision::kBf16 : Precision::kFp32;
    ToyRun run(config, true);
    const auto trainer = run.make_trainer();
    trainer->step();
    gradients[half] = {trainer->arena().flat_gradients().clone()};
  }
  // The two lie in other orders in their buffers, so norms are compared, which order doesn't change.
  EXPECT_NEAR(gradients[1][0].norm().item<double>(), gradients[0][0].norm().item<double>(),
              0.05 * gradients[0][0].norm().item<double>());
}

TEST(Trainer, FrozenInnerLevelStaysBitEqual) {
  Config config = tiny_config(true, kBothLevels);
  config.model.levels[0].freeze_inner_unet = true;
  config.trainer.weight_decay = 0.1;
  ToyRun run(config);
  const auto trainer = run.make_trainer();
  const std::vector<at::Tensor> before = copies(trainer->arena().weights());
  for (int step = 0; step < 5; ++step) trainer->step();
  const std::vector<NamedTensor> after = trainer->arena().weights();
  size_t inner = 0, moved = 0;
  for (size_t i = 0; i < after.size(); ++i) {
    const bool frozen = after[i].name.rfind("inner_unet.", 0) == 0,
               unused = after[i].name.rfind("interp_layer", 0) == 0;
    if (frozen || unused) {
      EXPECT_TRUE(after[i].tensor.equal(before[i])) << after[i].name;
      ++inner;
    } else {
      moved += after[i].tensor.equal(before[i]) ? 0 : 1;
    }
  }
  EXPECT_GT(inner, 20U);
  EXPECT_GT(moved, 20U);
}

// Weight decay must not reach what no gradient reaches.
TEST(Trainer, UnusedParametersStayBitEqual) {
  Config config = tiny_config(true);  // the highest level's loss alone: the inner level's prediction is unused
  config.trainer.weight_decay = 0.1;
  ToyRun run(config);
  const auto trainer = run.make_trainer();
  const std::vector<at::Tensor> before = copies(trainer->arena().weights());
  for (int step = 0; step < 3; ++step) trainer->step();
  const std::vector<NamedTensor> after = trainer->arena().weights();
  std::vector<std::string> still;
  for (size_t i = 0; i < after.size(); ++i) {
    if (after[i].tensor.equal(before[i])) still.push_back(after[i].name);
  }
  EXPECT_EQ(still,
            (std::vector<std::string>{"inner_unet.norm_out.weight", "inner_unet.norm_out.bias",
                                      "inner_unet.conv_out.weight", "inner_unet.conv_out.bias", "interp_layer1.weight",
                                      "interp_layer1.bias", "interp_layer2.weight", "interp_layer2.bias"}));
}

TEST(Trainer, ATextEncoderIsTrainedAlong) {
  ToyRun run(tiny_config(), /*learned_text=*/true);
  const at::Tensor before = run.text.trained()[0].tensor.detach().clone();
  const auto trainer = run.make_trainer();
  for (int step = 0; step < 3; ++step) trainer->step();
  EXPECT_EQ(trainer->arena().weights().back().name, "text_encoder.table");
  EXPECT_GT((trainer->arena().weights().back().tensor - before).abs().min().item<float>(), 0);
}

TEST(Trainer, TheFactorOfTheLossScalesItsGradientAlone) {
  std::vector<at::Tensor> gradients[2];
  StepReport reports[2];
  for (const bool scaled : {false, true}) {
    Config config = tiny_config();
    config.trainer.loss_factor = scaled ? 8 : 1;  // a power of two: to the bit
    ToyRun run(config);
    const auto trainer = run.make_trainer();
    reports[scaled] = trainer->step();
    gradients[scaled] = copies(trainer->arena().gradients());
  }
  EXPECT_EQ(reports[1].loss, reports[0].loss);
  EXPECT_EQ(reports[1].gradient_norm, 8 * reports[0].gradient_norm);
  EXPECT_GT(reports[0].gradient_norm, 0);
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_TRUE(gradients[1][i].equal(gradients[0][i] * 8));
}

TEST(Trainer, GoesOnFromTheAveragesWhenAskedTo) {
  const TemporaryFolder folder;
  RunDirectory directory(folder.path(), {});
  Config config = tiny_config();
  config.trainer.num_training_steps = 5;
  {
    ToyRun run(config);
    run.parts.run = &directory;
    run.make_trainer()->run();
  }
  const auto saved = directory.latest();
  ASSERT_TRUE(saved);
  const TensorFile weights = TensorFile::open(saved->folder / "weights.safetensors");
  const TensorFile averages = TensorFile::open(saved->folder / "ema.safetensors");
  for (const bool from_averages : {false, true}) {
    config.trainer.resume_from_ema = from_averages;
    ToyRun run(config);
    const auto trainer = run.make_trainer();
    trainer->resume(*saved);
    size_t differing = 0;
    for (const NamedTensor& item : trainer->arena().weights()) {
      const at::Tensor average = averages.tensor(item.name), weight = weights.tensor(item.name);
      EXPECT_TRUE(item.tensor.equal(from_averages ? average : weight)) << item.name;
      differing += average.equal(weight) ? 0 : 1;
    }
    EXPECT_GT(differing, 20U) << "the two are different things";
    for (const NamedTensor& item : trainer->arena().ema()) {
      EXPECT_TRUE(item.tensor.equal(averages.tensor(item.name))) << item.name;
    }
    EXPECT_EQ(trainer->state().step, 5U);
  }
}

// Stopped at any step and gone on with, a run ends in the same bits.
TEST(Trainer, ResumesExactlyFromAnyStep) {
  for (const bool nested : {false, true}) {
    Config config = tiny_config(nested, nested ? kHalfMixed : Overrides());
    config.trainer.num_training_steps = 9;
    config.trainer.save_freq = 100;
    config.trainer.num_gradient_accumulations = 2;
    std::string expected;
    TrainingState state;
    {
      ToyRun run(config, true);
      run.data.poisoned = {4};
      const auto trainer = run.make_trainer();
      EXPECT_EQ(trainer->run(), TrainingEnd::kFinished);
      expected = digest(trainer->arena());
      state = trainer->state();
    }
    for (int stop_at = 1; stop_at < 9; ++stop_at) {
      const TemporaryFolder folder;
      for (const bool second : {false, true}) {
        RunDirectory directory(folder.path(), {});
        ToyRun run(config, true);
        run.data.poisoned = {4};
        run.parts.run = &directory;
        std::atomic<bool> stop{false};
        run.parts.stop = &stop;
        const auto trainer = run.make_trainer();
        if (!second) {
          // The flag is looked at at the end of a step: that of step `stop_at` sees it.
          run.parts.on_step = nullptr;
          for (int step = 0; step + 1 < stop_at; ++step) trainer->step();
          stop = true;
          EXPECT_EQ(trainer->run(), TrainingEnd::kStopped);
          EXPECT_EQ(trainer->state().step, static_cast<uint64_t>(stop_at));
        } else {
          const auto latest = directory.latest();
          ASSERT_TRUE(latest);
          trainer->resume(*latest);
          EXPECT_EQ(trainer->run(), TrainingEnd::kFinished);
          EXPECT_EQ(digest(trainer->arena()), expected) << "stopped at " << stop_at;
          EXPECT_EQ(trainer->state().to_json(), state.to_json());
          EXPECT_EQ(run.data.served, 9U * 8U);
        }
      }
    }
  }
}

TEST(Trainer, TwoRunsWithOneSeedAreEqual) {
  std::string digests[2];
  for (std::string& text : digests) {
    ToyRun run(tiny_config(true, kBothLevels));
    const auto trainer = run.make_trainer();
    trainer->run();
    text = digest(trainer->arena());
  }
  EXPECT_EQ(digests[0], digests[1]);
}

TEST(Trainer, WritesTheFilesOfTheReference) {
  const TemporaryFolder folder;
  RunDirectory directory(folder.path(), {});
  Config config = tiny_config();
  config.trainer.num_training_steps = 7;
  ToyRun run(config, true);
  run.parts.run = &directory;
  const auto trainer = run.make_trainer();
  trainer->run();
  const TensorFile ema = TensorFile::open(folder.path() / "vis_model_000007.pth");
  const TensorFile plain = TensorFile::open(folder.path() / "vis_model_noema_000007.pth");
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "vis_model_000005.pth"));
  const std::vector<NamedTensor> weights = trainer->arena().weights(), averages = trainer->arena().ema();
  size_t i = 0;
  for (const TensorEntry& entry : ema.entries()) {
    EXPECT_EQ(entry.name, weights[i].name);
    EXPECT_TRUE(ema.tensor(entry.name).equal(averages[i].tensor.contiguous()));
    EXPECT_TRUE(plain.tensor(entry.name).equal(weights[i].tensor.contiguous()));
    ++i;
  }
  EXPECT_EQ(i + 1, weights.size()) << "the text encoder stands beside state_dict";
  TensorFile::Options options;
  options.state_dict_path = "text_encoder";
  EXPECT_TRUE(
      TensorFile::open(folder.path() / "vis_model_000007.pth", options).tensor("table").equal(averages.back().tensor));
  const auto items = nlohmann::json::parse(ema.metadata_json());
  EXPECT_EQ(items.at("batch_num"), 7);
  EXPECT_EQ(items.at("loss"), trainer->state().loss);
  EXPECT_EQ(items.at("best_avg_loss"), trainer->state().average_loss);
  EXPECT_EQ(items.at("exp_avg_loss"), trainer->state().average_loss);
  EXPECT_EQ(items.at("exp_avg_loss_var"), trainer->state().loss_variance);
  EXPECT_EQ(items.at("text_vocabulary"), "a\t0\n");
  EXPECT_EQ(config_to_json(config_from_json(items.at("args").dump())), config_to_json(config));
}

TEST(TrainingState, SurvivesItsFileBitForBit) {
  TrainingState state;
  state.seed = 0xFFFFFFFFFFFFFFFFULL;
  state.step = 12;
  state.attempt = 1;
  for (int i = 0; i < 50; ++i) state.add_loss(std::exp(0.1 * i));
  const TrainingState again = TrainingState::from_json(state.to_json());
  EXPECT_EQ(again.to_json(), state.to_json());
  EXPECT_EQ(again.average_loss, state.average_loss);
  EXPECT_EQ(again.seed, state.seed);
  EXPECT_THROW(TrainingState::from_json("{}"), CheckpointError);
  EXPECT_THROW(TrainingState::from_json("["), CheckpointError);
}

// Numbers that a direct transcription of the reference's formulas in float64 gives.
TEST(TrainingState, AveragesLossesAsTheReferenceDoes) {
  TrainingState state;
  state.add_loss(2);
  EXPECT_EQ(state.average_loss, 2);
  EXPECT_EQ(state.loss_variance, 4);
  state.add_loss(100);
  const double near = 2 + 6 * std::tanh(98.0 / 6);
  const double average = 0.99 * 2 + 0.01 * near;
  EXPECT_NEAR(state.average_loss, average, 1e-14);
  EXPECT_NEAR(state.loss_variance, 0.99 * 4 + 0.01 * (near - average) * (near - average), 1e-14);
}

}  // namespace
}  // namespace mdm::training_test
