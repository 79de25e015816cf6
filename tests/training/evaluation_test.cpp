// What is seen of a training while it goes on: validation loss, sample grid, lines for the user.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "mdm/core/files.h"
#include "mdm/diffusion/schedule.h"
#include "mdm/text/other_encoders.h"
#include "training/sample_grid.h"
#include "training/step_display.h"
#include "training/support.h"
#include "training/validation.h"

namespace mdm::training_test {
namespace {

ProcessGroup alone;

void damage(ParameterArena& arena, const std::vector<NamedTensor>& tensors) {
  for (const NamedTensor& item : tensors) item.tensor.mul_(1.25);
  arena.weights_changed();
}

class Evaluation : public ::testing::TestWithParam<bool> {
 protected:
  Evaluation() : run_(tiny_config(GetParam(), GetParam() ? kHalfMixed : Overrides())), trainer_(run_.make_trainer()) {
    for (int step = 0; step < 3; ++step) trainer_->step();
  }
  ValidationLoss loss(int64_t batches = 6) {
    return validate(run_.config, batches, *run_.model, arena(), held_out_, &run_.text, at::kCPU, alone).value();
  }
  ParameterArena& arena() { return trainer_->arena(); }

  ToyRun run_;
  ToyBatches held_out_{side_of(run_.config), 4, 1};
  std::unique_ptr<Trainer> trainer_;
};

void expect_equal(const ValidationLoss& a, const ValidationLoss& b) {
  EXPECT_EQ(a.mean, b.mean);
  EXPECT_EQ(a.quartiles, b.quartiles);
}

TEST_P(Evaluation, LossIsTheSameEachTimeAndOfTheAverages) {
  const std::string before = digest(arena());
  const ValidationLoss first = loss();
  EXPECT_TRUE(std::isfinite(first.mean) && first.mean > 0);
  expect_equal(loss(), first);
  EXPECT_EQ(digest(arena()), before);
  EXPECT_TRUE(run_.model->is_training()) << "dropout is on again";

  damage(arena(), arena().weights());
  expect_equal(loss(), first);
  damage(arena(), arena().ema());
  EXPECT_NE(loss().mean, first.mean);
}

TEST_P(Evaluation, TrainsOnAsIfNothingHadBeen) {
  ToyRun other(run_.config);
  const auto undisturbed = other.make_trainer();
  for (int step = 0; step < 6; ++step) undisturbed->step();
  for (int step = 0; step < 3; ++step) {
    loss(1);
    trainer_->step();
  }
  EXPECT_EQ(digest(arena()), digest(undisturbed->arena()));
}

// Four samples a batch: row i is of quartile i.
TEST_P(Evaluation, BrokenSamplesCountInNoQuartile) {
  const ValidationLoss whole = loss();
  for (uint64_t batch = 0; batch < 6; ++batch) held_out_.broken.insert(4 * batch + 2);
  const ValidationLoss without = loss();
  EXPECT_FALSE(without.quartiles[2]);
  double sum = 0;
  for (const size_t kept : {0U, 1U, 3U}) {
    EXPECT_EQ(without.quartiles[kept].value(), whole.quartiles[kept].value());
    sum += *whole.quartiles[kept];
  }
  EXPECT_NEAR(without.mean, sum / 3, 1e-12);
  EXPECT_NEAR(whole.mean, (sum + whole.quartiles[2].value()) / 4, 1e-12);
  for (uint64_t sample = 0; sample < 24; ++sample) held_out_.broken.insert(sample);
  EXPECT_FALSE(validate(run_.config, 6, *run_.model, arena(), held_out_, &run_.text, at::kCPU, alone))
      << "nothing to average";
}

INSTANTIATE_TEST_SUITE_P(Models, Evaluation, ::testing::Bool(),
                         [](const auto& test) { return std::string(test.param ? "nested" : "flat"); });

// A model that says v = 0 is wrong about eps by sqrt(gamma) (sqrt(gamma) eps - sqrt(1 - gamma) x_0): by eps itself
// where there is no noise, by nothing where all is noise.
TEST(Validation, QuartilesAreInTheOrderOfTheTimes) {
  ToyRun run(tiny_config());
  run.model->init({make_generator(5), LayerInit::kZero});
  const auto trainer = run.make_trainer();
  ToyBatches held_out(side_of(run.config), 4, 1);
  const auto quartiles =
      validate(run.config, 16, *run.model, trainer->arena(), held_out, &run.text, at::kCPU, alone).value().quartiles;
  const Schedule schedule(run.config.diffusion.sampler_config, {1});
  for (size_t q = 0; q < 4; ++q) {
    // Time t has gamma_{t+1}; |x_0| <= 1, and the mean of eps^2 over 16 pictures of 192 numbers is 1 within 0.15.
    const double high = schedule.gammas()[25 * q + 1], low = schedule.gammas()[25 * q + 25];
    EXPECT_LT(quartiles[q].value(), high * 1.15) << q;
    EXPECT_GT(quartiles[q].value(), low * low * 0.85) << q;
    EXPECT_LT(quartiles[q].value(), q == 0 ? 1.15 : quartiles[q - 1].value()) << q;
  }
}

class SampleGrid : public ::testing::TestWithParam<bool> {
 protected:
  SampleGrid() : run_(tiny_config(GetParam(), GetParam() ? kHalfMixed : Overrides())), trainer_(run_.make_trainer()) {
    std::string classes;
    for (int64_t i = 0; i < kTextWidth; ++i) classes += "kind " + std::to_string(i) + "\n";
    write_file(folder_.path() / "classes.vocab", classes);
    encoder_ = std::make_unique<ClassLabelEncoder>(folder_.path() / "classes.vocab", -1, at::kCPU);
    run_.config.trainer.sample_steps = 3;
    setup_.prompts = {"kind 0", "kind 1", "kind 2", "kind 3", "kind 4"};  // of batches of 4
    setup_.side = side_of(run_.config);
    trainer_->step();
  }
  Image grid() { return draw_grid(run_.config, setup_, *run_.model, trainer_->arena(), encoder_.get()).value(); }

  const TemporaryFolder folder_;
  ToyRun run_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<ClassLabelEncoder> encoder_;
  GridSetup setup_;
};

TEST_P(SampleGrid, IsTheSameForTheSameWeightsAndOfTheAverages) {
  const std::string before = digest(trainer_->arena());
  const Image first = grid();
  EXPECT_GE(first.width, 2 * setup_.side);
  EXPECT_EQ(grid().pixels, first.pixels);
  EXPECT_EQ(digest(trainer_->arena()), before);
  EXPECT_TRUE(run_.model->is_training());

  damage(trainer_->arena(), trainer_->arena().weights());
  EXPECT_EQ(grid().pixels, first.pixels) << "drawn with the averages";
  trainer_->arena().reset_ema();
  EXPECT_NE(grid().pixels, first.pixels);
}

TEST_P(SampleGrid, ShowsWhatThePromptsSay) {
  const Image first = grid();
  setup_.prompts[4] = "kind 11";
  EXPECT_NE(grid().pixels, first.pixels);
}

// Ctrl-C doesn't wait for pictures, and the model must be fit to train on.
TEST_P(SampleGrid, AndLossEndWhenAskedTo) {
  const std::atomic<bool> stop{true};
  setup_.stop = &stop;
  EXPECT_FALSE(draw_grid(run_.config, setup_, *run_.model, trainer_->arena(), encoder_.get()));
  EXPECT_FALSE(validate(run_.config, 2, *run_.model, trainer_->arena(), run_.data, &run_.text, at::kCPU, alone, &stop));
  EXPECT_TRUE(run_.model->is_training());
  EXPECT_TRUE(trainer_->step().updated);
}

INSTANTIATE_TEST_SUITE_P(Models, SampleGrid, ::testing::Bool(),
                         [](const auto& test) { return std::string(test.param ? "nested" : "flat"); });

// A log file gets whole lines, no bar: one at the end from the progress, and one each log_freq steps.
TEST(StepDisplay, WritesLinesWhereThereIsNoTerminal) {
  ::setenv("TERM", "dumb", 1);
  TrainerConfig config;
  config.log_freq = 2;
  TrainingState state;
  std::string shown;
  ::testing::internal::CaptureStderr();
  {
    StepDisplay display(config, 10, state, [&](std::string_view text) { shown += text; });
    for (uint64_t step = 1; step <= 5; ++step) {
      StepReport report;
      report.step = state.step = step;
      report.loss = 0.5;
      report.lr = 0.001;
      report.images = 8;
      report.seconds = 0.25;
      report.updated = step != 4;
      state.average_loss = 0.75;
      display.add(report, state);
    }
  }
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(shown.find('\r'), std::string::npos);
  EXPECT_EQ(shown.rfind("training: 5/10 ", 0), 0U) << shown;
  EXPECT_NE(shown.find("loss 0.5000  lr 0.001  grad 0  32.0 img/s  data wait 0%"), std::string::npos) << shown;
  EXPECT_EQ(shown.find('\n'), shown.size() - 1);
  EXPECT_NE(log.find("step 2: average loss 0.75, loss 0.5000"), std::string::npos) << log;
  EXPECT_NE(log.find("step 4: loss 0.5, gradient norm 0: the weights stay as they are"), std::string::npos) << log;
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 2) << log;
}

}  // namespace
}  // namespace mdm::training_test
