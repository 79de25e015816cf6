// Several processes (ranks as threads here) train the model that one would.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "distributed/ranks.h"
#include "mdm/core/error.h"
#include "training/gradient_exchange.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

using distributed_test::expect_ranks;
using distributed_test::message;
using distributed_test::run_ranks;

constexpr int64_t kGlobalRows = 8;

struct Case {
  const char* name;
  bool nested = false;
  Overrides settings = {};
  int64_t accumulations = 1;
  bool holes = false;
  bool learned_text = false;
};

// What a run of some steps has left on one rank.
struct Outcome {
  std::vector<double> losses;
  std::vector<int64_t> images;
  std::vector<at::Tensor> first_gradients, weights, ema;  // a divided run: the last two on rank 0 only
  std::vector<at::Tensor> parameters;                     // what the module computes with
};

// By parameter, each in the order of its memory. Of a divided arena put together from the processes' parts.
std::vector<at::Tensor> summed_gradients(const ParameterArena& arena, ProcessGroup& group) {
  const at::Tensor flat = at::zeros_like(arena.flat_gradients());
  for (const ParameterArena::Range& bucket : arena.buckets()) {
    const ParameterArena::Range own = arena.own_part(bucket);
    flat.narrow(0, own.first, own.count).copy_(arena.flat_gradients().narrow(0, own.first, own.count));
  }
  if (arena.divided()) group.sum(flat, "gradients");
  std::vector<at::Tensor> out;
  for (const ParameterArena::Range& range : arena.trained_ranges()) {
    out.push_back(flat.narrow(0, range.first, range.count));
  }
  return out;
}

Outcome train(const Case& setup, ProcessGroup& group, int steps, bool sharded = false) {
  Config config = tiny_config(setup.nested, setup.settings);
  config.trainer.shard_optimizer = sharded;
  config.trainer.num_gradient_accumulations = setup.accumulations;
  config.trainer.batch_size = kGlobalRows / group.size() / setup.accumulations;
  config.trainer.adam_eps = 1e-4;  // with 1e-8 Adam makes steps of full size out of rounding errors
  config.trainer.num_training_steps = steps;
  ToyRun run(config, setup.learned_text);
  run.data.rank = group.rank();
  run.data.processes = group.size();
  if (setup.holes) run.data.broken = {3, 9, 21, 40, 41, 42, 43, 60};
  run.parts.group = &group;
  const auto trainer = run.make_trainer();
  Outcome out;
  for (int step = 0; step < steps; ++step) {
    const StepReport report = trainer->step();
    out.losses.push_back(report.loss);
    out.images.push_back(report.images);
    if (step == 0) out.first_gradients = summed_gradients(trainer->arena(), group);
  }
  out.weights = copies(trainer->arena().weights());
  out.ema = copies(trainer->arena().ema());
  for (const at::Tensor& parameter : trainer->arena().trained_parameters()) {
    out.parameters.push_back(parameter.detach().clone());
  }
  return out;
}

double worst_absolute(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, (a[i] - b[i]).abs().max().item<double>());
  return worst;
}

class SeveralProcesses : public ::testing::TestWithParam<std::tuple<Case, bool>> {};

TEST_P(SeveralProcesses, TrainTheModelThatOneWould) {
  constexpr int kSteps = 20;
  const auto& [setup, sharded] = GetParam();
  ProcessGroup alone;
  const Outcome one = train(setup, alone, kSteps);
  for (const int64_t world : {2, 4}) {
    if (kGlobalRows % (world * setup.accumulations) != 0) continue;
    std::vector<Outcome> ranks(static_cast<size_t>(world));
    expect_ranks(world, [&, &setup = setup, sharded = sharded](ProcessGroup& group) {
      ranks[static_cast<size_t>(group.rank())] = train(setup, group, kSteps, sharded);
    });
    if (::testing::Test::HasFailure()) return;
    for (const Outcome& rank : ranks) {
      for (size_t step = 0; step < one.losses.size(); ++step) {
        EXPECT_NEAR(rank.losses[step], one.losses[step], 1e-5 * std::abs(one.losses[step])) << world << " " << step;
      }
      EXPECT_EQ(rank.images, one.images);
      EXPECT_LT(worst_difference(rank.first_gradients, one.first_gradients), 1e-5) << world;
      EXPECT_LT(worst_absolute(rank.parameters, one.parameters), 5e-6) << world;
      EXPECT_EQ(worst_absolute(rank.parameters, ranks[0].parameters), 0) << "the same bits on all ranks";
      if (sharded && &rank != &ranks[0]) continue;
      EXPECT_LT(worst_absolute(rank.weights, one.weights), 5e-6) << world;
      EXPECT_LT(worst_absolute(rank.ema, one.ema), 5e-6) << world;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, SeveralProcesses,
    ::testing::Combine(
        ::testing::Values(
            Case{"plain"}, Case{"holes", false, {}, 1, true}, Case{"accumulated", false, {}, 2, true},
            Case{"vdm", false, {{"use_vdm_loss_weights", "true"}}, 1, true},
            Case{"learned_text", false, {}, 1, false, true},
            Case{"small_buckets", false, {{"bucket_mb", "0.004"}}, 1, false, true},
            Case{"recomputed", true, {{"use_double_loss", "true"}, {"gradient_checkpointing", "true"}}},
            Case{"highest_level_only", true, {}}, Case{"frozen_inner", true, {{"freeze_inner_unet", "true"}}},
            // With 4 ranks of 2 rows, two of them have no row on the higher level.
            Case{"rank_without_rows", true, {{"use_double_loss", "true"}, {"mixed_ratio", "1:1"}}, 1, true},
            Case{"mixed_accumulated_vdm",
                 true,
                 {{"use_double_loss", "true"}, {"mixed_ratio", "1:1"}, {"use_vdm_loss_weights", "true"}},
                 2,
                 true}),
        ::testing::Bool()),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).name) + (std::get<1>(test.param) ? "_sharded" : "");
    });

// What is handed to c10d: every gradient once a step, one call a bucket, in the same order everywhere; nothing between
// micro-steps.
TEST(GradientExchangeTest, SendsEachGradientOnce) {
  constexpr int64_t kWorld = 2;
  expect_ranks(kWorld, [&](ProcessGroup& group) {
    ToyRun run(tiny_config(false, {{"bucket_mb", "0.004096"}}));
    const auto trainer = run.make_trainer();
    ParameterArena& arena = trainer->arena();
    GradientExchange exchange(arena, group, at::kFloat);
    const size_t buckets = arena.buckets().size();
    EXPECT_GT(buckets, 5U);
    const auto sent = [&group] { return group.traffic(ProcessGroup::Collective::kAllReduce); };
    const auto bytes = static_cast<uint64_t>(arena.flat_gradients().nbytes());
    const auto add_up = [&](double value) {
      at::Tensor sum = at::zeros({});
      for (const at::Tensor& parameter : arena.trained_parameters()) sum = sum + parameter.sum() * value;
      sum.backward();
    };
    for (uint64_t step = 1; step <= 3; ++step) {
      arena.zero_gradients();
      add_up(1);  // a micro-step
      EXPECT_EQ(sent().calls, (step - 1) * buckets);
      exchange.begin();
      add_up(static_cast<double>(10 * (group.rank() + 1)));
      EXPECT_EQ(sent().calls, step * buckets) << "all gone before finish()";
      exchange.finish();
      EXPECT_EQ(sent().calls, step * buckets);
      EXPECT_EQ(sent().bytes, step * bytes);
      for (const NamedTensor& gradient : arena.gradients()) {
        EXPECT_TRUE(at::all(gradient.tensor == 2 + 10 + 20).item<bool>()) << gradient.name;
      }
    }
  });
}

// Parameters without a gradient in this process, or in any, don't hold up the others.
TEST(GradientExchangeTest, SendsWhatIsLeftAtTheEnd) {
  expect_ranks(2, [&](ProcessGroup& group) {
    ToyRun run(tiny_config(false, {{"bucket_mb", "0.002048"}}));
    const auto trainer = run.make_trainer();
    ParameterArena& arena = trainer->arena();
    GradientExchange exchange(arena, group, at::kFloat);
    for (int step = 0; step < 3; ++step) {
      arena.zero_gradients();
      exchange.begin();
      const auto parameters = arena.trained_parameters();
      at::Tensor sum = at::zeros({});
      for (size_t i = 0; i < parameters.size(); ++i) {
        if (i % 3 == static_cast<size_t>(group.rank())) sum = sum + parameters[i].sum();
      }
      sum.backward();
      exchange.finish();
      const auto gradients = arena.gradients();
      for (size_t i = 0; i < gradients.size(); ++i) {
        EXPECT_TRUE(at::all(gradients[i].tensor == (i % 3 < 2 ? 1 : 0)).item<bool>()) << gradients[i].name;
      }
    }
    exchange.finish();  // without a backward pass, as after a failure: the others wait for it
  });
}

TEST(GradientExchangeTest, RoundsToBfloat16WhenAsked) {
  expect_ranks(2, [&](ProcessGroup& group) {
    ToyRun run(tiny_config());
    const auto trainer = run.make_trainer();
    GradientExchange exchange(trainer->arena(), group, at::kBFloat16);
    trainer->arena().flat_gradients().fill_(1.0 + 1.0 / 512);  // between two bfloat16 numbers
    exchange.finish();
    EXPECT_EQ(group.traffic(ProcessGroup::Collective::kAllReduce).bytes,
              trainer->arena().flat_gradients().nbytes() / 2);
    EXPECT_EQ(trainer->arena().flat_gradients().max().item<double>(), 2);
  });
}

// One rank's loss is no number: all skip the step, with equal counters.
TEST(Agreement, SkipsAStepTogether) {
  std::vector<TrainingState> states(3);
  std::vector<std::string> digests(3);
  expect_ranks(3, [&](ProcessGroup& group) {
    Config config = tiny_config();
    ToyRun run(config);
    run.data.rank = group.rank();
    run.data.processes = group.size();
    if (group.rank() == 1) run.data.poisoned = {2, 3};
    run.parts.group = &group;
    const auto trainer = run.make_trainer();
    for (int step = 0; step < 6; ++step) EXPECT_EQ(trainer->step().updated, step != 2 && step != 3);
    states[static_cast<size_t>(group.rank())] = trainer->state();
    digests[static_cast<size_t>(group.rank())] = digest(trainer->arena());
  });
  for (size_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(states[rank].skipped, 2U);
    EXPECT_EQ(states[rank].updates, 4U);
    EXPECT_EQ(states[rank].to_json(), states[0].to_json());
    EXPECT_EQ(digests[rank], digests[0]);
  }
}

// One rank's data ends the run in all of them, with a checkpoint; the message says whose fault it was.
TEST(Agreement, EndsTogetherWhenTheDataOfOneFails) {
  const TemporaryFolder folder;
  const auto thrown = run_ranks(2, [&](ProcessGroup& group) {
    Config config = tiny_config();
    ToyRun run(config);
    run.data.rank = group.rank();
    run.data.processes = group.size();
    if (group.rank() == 1) run.data.fails_at = 7;
    run.parts.group = &group;
    std::optional<RunDirectory> directory;
    if (group.rank() == 0) directory.emplace(folder.path(), RunDirectory::Options{});
    run.parts.run = directory ? &*directory : nullptr;
    run.make_trainer()->run();
  });
  EXPECT_THROW(std::rethrow_exception(thrown[1]), DataError);
  EXPECT_THROW(std::rethrow_exception(thrown[0]), DistributedError);
  EXPECT_NE(message(thrown[0]).find("step 8 has failed in another process: rank 1: the toy data can't be read"),
            std::string::npos)
      << message(thrown[0]);
  EXPECT_EQ(RunDirectory::peek(folder.path())->step, 7U);
}

// A stop that only one process was asked for stops all after the same step.
TEST(Agreement, StopsTogetherAndGoesOnWithAnotherWorldSize) {
  const TemporaryFolder folder;
  const auto run_in = [&](ProcessGroup& group, int64_t stop_at) {
    Config config = tiny_config();
    config.trainer.batch_size = kGlobalRows / group.size();
    config.trainer.num_training_steps = 12;
    config.trainer.adam_eps = 1e-4;
    ToyRun run(config);
    run.data.rank = group.rank();
    run.data.processes = group.size();
    run.parts.group = &group;
    std::optional<RunDirectory> directory;
    if (group.rank() == 0) directory.emplace(folder.path(), RunDirectory::Options{});
    run.parts.run = directory ? &*directory : nullptr;
    std::atomic<bool> stop{false};
    run.parts.stop = &stop;
    run.parts.on_step = [&](const StepReport& report) {
      if (group.rank() == group.size() - 1 && report.step == static_cast<uint64_t>(stop_at)) stop = true;
    };
    const auto trainer = run.make_trainer();
    if (const auto saved = RunDirectory::peek(folder.path())) trainer->resume(*saved);
    trainer->run();
    return std::pair(trainer->state().step, copies(trainer->arena().weights()));
  };
  ProcessGroup alone;
  std::vector<at::Tensor> reference;
  {
    const TemporaryFolder own;
    Config config = tiny_config();
    config.trainer.batch_size = kGlobalRows;
    config.trainer.adam_eps = 1e-4;
    ToyRun run(config);
    const auto trainer = run.make_trainer();
    for (int step = 0; step < 12; ++step) trainer->step();
    reference = copies(trainer->arena().weights());
  }
  std::mutex mutex;
  std::set<uint64_t> ends;
  expect_ranks(4, [&](ProcessGroup& group) {
    const uint64_t end = run_in(group, 3).first;
    const std::lock_guard<std::mutex> lock(mutex);
    ends.insert(end);
  });
  EXPECT_EQ(ends, std::set<uint64_t>{4}) << "asked for after step 3, so step 4 is the last";
  expect_ranks(2, [&](ProcessGroup& group) { EXPECT_EQ(run_in(group, 7).first, 8U); });
  const auto last = run_in(alone, 0);
  EXPECT_EQ(last.first, 12U);
  EXPECT_LT(worst_absolute(last.second, reference), 5e-6);
}

}  // namespace
}  // namespace mdm::training_test
