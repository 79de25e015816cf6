// The trainer in trouble: steps that are not finite, loss spikes, going back, files that a crash has prevented.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "mdm/core/error.h"
#include "mdm/training/trainer.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

TEST(Trainer, AStepWithoutSamplesChangesNothing) {
  ToyRun run(tiny_config());
  run.data.broken = {0, 1, 2, 3};
  const auto trainer = run.make_trainer();
  const std::string before = digest(trainer->arena());
  const StepReport report = trainer->step();
  EXPECT_FALSE(report.updated);
  EXPECT_EQ(report.images, 0);
  EXPECT_EQ(trainer->state().skipped, 0U) << "it is no fault of the numbers";
  EXPECT_EQ(digest(trainer->arena()), before);
  EXPECT_TRUE(trainer->step().updated);
}

TEST(Trainer, StepsThatAreNotFiniteAreSkippedAndCounted) {
  ToyRun run(tiny_config());
  run.data.poisoned = {2, 3, 7};
  const auto trainer = run.make_trainer();
  for (int step = 0; step < 10; ++step) {
    const std::string before = digest(trainer->arena());
    const StepReport report = trainer->step();
    EXPECT_EQ(report.updated, run.data.poisoned.count(static_cast<uint64_t>(step)) == 0);
    EXPECT_EQ(digest(trainer->arena()) == before, !report.updated);
  }
  EXPECT_EQ(trainer->state().skipped, 3U);
  EXPECT_EQ(trainer->state().skipped_in_row, 0U);
  EXPECT_EQ(trainer->state().updates, 7U);
  EXPECT_EQ(trainer->state().step, 10U);
}

TEST(Trainer, GoesBackOnceAndThenEnds) {
  const TemporaryFolder folder;
  Config config = tiny_config();
  config.trainer.max_skipped_steps = 4;
  config.trainer.save_freq = 3;
  for (const bool recovers : {true, false}) {
    RunDirectory directory(folder.path() / (recovers ? "recovers" : "ends"), {});
    ToyRun run(config);
    run.parts.run = &directory;
    for (uint64_t step = 8; step < 40; ++step) run.data.poisoned.insert(step);
    run.data.poison_first_attempt = recovers;
    const auto trainer = run.make_trainer();
    if (recovers) {
      EXPECT_EQ(trainer->run(), TrainingEnd::kFinished);
      EXPECT_EQ(trainer->state().attempt, 1U);
      EXPECT_EQ(trainer->state().step, 20U);
    } else {
      EXPECT_THROW(trainer->run(), Error);
      EXPECT_EQ(trainer->state().attempt, 1U) << "once";
    }
  }
}

// F11: clipped to the norm to the bit of what goes into the moments, and forgotten soon.
TEST(Trainer, ALossAHundredTimesAsLargeIsClippedAndTrainingGoesOn) {
  ToyRun run(tiny_config());
  const auto trainer = run.make_trainer();
  double usual = 0;
  for (int step = 0; step < 5; ++step) usual = std::max(usual, trainer->step().loss);
  std::vector<at::Tensor> before = copies(trainer->arena().moments());
  at::Tensor output;
  for (const NamedTensor& item : trainer->arena().weights()) {
    if (item.name == "conv_out.weight") output = item.tensor;
  }
  ASSERT_TRUE(output.defined());
  const at::Tensor sound = output.clone();
  output.mul_(1000);
  trainer->arena().weights_changed();
  const StepReport spike = trainer->step();
  EXPECT_TRUE(spike.updated);
  EXPECT_GT(spike.loss, 100 * usual);
  EXPECT_GT(spike.gradient_norm, 10 * run.config.trainer.gradient_clip_norm);
  // exp_avg has moved by (1 - beta1) (clipped gradient - exp_avg).
  double squares = 0;
  const std::vector<NamedTensor> after = trainer->arena().moments();
  const double beta1 = run.config.trainer.adam_beta1;
  for (size_t i = 0; i < after.size(); ++i) {
    if (after[i].name.rfind("exp_avg.", 0) != 0) continue;
    const at::Tensor gradient = (after[i].tensor.to(at::kDouble) - before[i].to(at::kDouble) * beta1) / (1 - beta1);
    squares += gradient.square().sum().item<double>();
  }
  EXPECT_NEAR(std::sqrt(squares), run.config.trainer.gradient_clip_norm, 1e-4);

  output.copy_(sound);
  trainer->arena().weights_changed();
  for (int step = 0; step < 10; ++step) {
    const StepReport report = trainer->step();
    ASSERT_TRUE(report.updated);
    EXPECT_LT(report.loss, 3 * usual) << "step " << report.step;
  }
  EXPECT_EQ(trainer->state().skipped, 0U);
  for (const NamedTensor& item : trainer->arena().weights()) {
    EXPECT_TRUE(item.tensor.isfinite().all().item<bool>()) << item.name;
  }
}

// F11, with the number of steps that is set when nobody sets one.
TEST(Trainer, TwentyStepsThatAreNotFiniteAreOneTooMany) {
  const TemporaryFolder folder;
  Config config = tiny_config();
  ASSERT_EQ(config.trainer.max_skipped_steps, 20);
  config.trainer.save_freq = 6;
  config.trainer.num_training_steps = 30;
  config.trainer.write_pth = false;
  for (const uint64_t bad : {19U, 20U}) {
    RunDirectory directory(folder.path() / std::to_string(bad), {});
    ToyRun run(config);
    run.parts.run = &directory;
    for (uint64_t step = 6; step < 6 + bad; ++step) run.data.poisoned.insert(step);
    run.data.poison_first_attempt = true;
    uint64_t steps = 0;
    run.parts.on_step = [&](const StepReport&) { ++steps; };
    const auto trainer = run.make_trainer();
    EXPECT_EQ(trainer->run(), TrainingEnd::kFinished);
    EXPECT_EQ(trainer->state().attempt, bad == 20 ? 1U : 0U);
    EXPECT_EQ(steps, bad == 20 ? 50U : 30U) << "26 steps, and all but 6 of the 30";
    EXPECT_EQ(trainer->state().step, 30U);
  }
}

TEST(Trainer, EndsWithoutACheckpointToGoBackTo) {
  ToyRun run(tiny_config());
  run.config.trainer.max_skipped_steps = 2;
  run.data.poisoned = {0, 1};
  const auto trainer = run.make_trainer();
  EXPECT_THROW(trainer->run(), Error);
}

// Weights that have been no good for some steps are nothing to go back to.
TEST(Trainer, GoesBackToBeforeTheTrouble) {
  const TemporaryFolder folder;
  RunDirectory directory(folder.path(), {});
  Config config = tiny_config();
  config.trainer.max_skipped_steps = 6;
  config.trainer.save_freq = 4;
  ToyRun run(config);
  run.parts.run = &directory;
  for (uint64_t step = 9; step < 40; ++step) run.data.poisoned.insert(step);
  run.data.poison_first_attempt = true;
  std::vector<uint64_t> steps;
  run.parts.on_step = [&](const StepReport& report) { steps.push_back(report.step); };
  const auto trainer = run.make_trainer();
  EXPECT_EQ(trainer->run(), TrainingEnd::kFinished);
  const auto back = std::adjacent_find(steps.begin(), steps.end(), std::greater<uint64_t>());
  ASSERT_NE(back, steps.end());
  EXPECT_EQ(*back, 15U);
  EXPECT_EQ(*std::next(back), 9U) << "the checkpoint of step 8 is the last one before it";
}

// A crash between the two leaves a last checkpoint without its files for sampling.
TEST(Trainer, FilesForSamplingThatACrashHasPreventedAreWrittenLater) {
  const TemporaryFolder folder;
  RunDirectory directory(folder.path(), {});
  Config config = tiny_config();
  config.trainer.num_training_steps = 5;
  for (const bool again : {false, true}) {
    ToyRun run(config);
    run.parts.run = &directory;
    const auto trainer = run.make_trainer();
    if (again) {
      for (const char* name : {"vis_model_000005.pth", "vis_model_noema_000005.pth"}) {
        ASSERT_TRUE(std::filesystem::remove(folder.path() / name));
      }
      trainer->resume(*directory.latest());
    }
    EXPECT_EQ(trainer->run(), TrainingEnd::kFinished);
  }
  const TensorFile averages = TensorFile::open(folder.path() / "ckpt_0000005/ema.safetensors");
  for (const char* name : {"vis_model_000005.pth", "vis_model_noema_000005.pth"}) {
    ASSERT_TRUE(std::filesystem::exists(folder.path() / name)) << name;
  }
  const TensorFile model = TensorFile::open(folder.path() / "vis_model_000005.pth");
  EXPECT_TRUE(model.tensor("conv_in.weight").equal(averages.tensor("conv_in.weight")));
}

}  // namespace
}  // namespace mdm::training_test
