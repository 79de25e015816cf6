// The optimizer's state divided among processes (ZeRO-1; ranks as threads here): the same training with less memory.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <optional>

#include "distributed/ranks.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

using distributed_test::expect_ranks;

struct ShardedRun {
  const char* name;
  bool bf16 = false;
  bool nested = false;
  Overrides settings = {};
};

Config config_of(const ShardedRun& setup, bool sharded, int64_t processes) {
  Config config = tiny_config(setup.nested, setup.settings);
  config.runtime.precision = setup.bf16 ? Precision::kBf16 : Precision::kFp32;
  config.trainer.batch_size = 8 / processes;
  // The norm is added up in another order when the state is divided: without clipping it has no effect.
  config.trainer.gradient_clip_norm = 1e9;
  config.trainer.bucket_mb = 0.004;
  config.trainer.shard_optimizer = sharded;
  return config;
}

// One rank of a run; on rank 0 with a run directory in `folder`, if any.
struct Rank {
  Rank(const ShardedRun& setup, bool sharded, ProcessGroup& group, const std::filesystem::path& folder = {})
      : run(config_of(setup, sharded, group.size()), true) {
    run.data.rank = group.rank();
    run.data.processes = group.size();
    run.parts.group = &group;
    if (!folder.empty() && group.rank() == 0) directory.emplace(folder, RunDirectory::Options{});
    run.parts.run = directory ? &*directory : nullptr;
    trainer = run.make_trainer();
  }
  void steps(int count) {
    for (int step = 0; step < count; ++step) EXPECT_TRUE(trainer->step().updated);
  }
  ParameterArena& arena() { return trainer->arena(); }

  ToyRun run;
  std::optional<RunDirectory> directory;
  std::unique_ptr<Trainer> trainer;
};

class Sharded : public ::testing::TestWithParam<ShardedRun> {};

// Two processes: a sum of two numbers has no order, so that all bits must be the same.
TEST_P(Sharded, GivesTheBitsOfTheUndividedState) {
  constexpr int kSteps = 6;
  std::string digests[2];
  ParameterArena::Bytes bytes[2];
  for (const bool sharded : {false, true}) {
    expect_ranks(2, [&](ProcessGroup& group) {
      Rank rank(GetParam(), sharded, group);
      EXPECT_EQ(rank.arena().divided(), sharded);
      rank.steps(kSteps);
      const std::string own = digest(rank.arena());
      if (group.rank() != 0) return;
      digests[sharded] = own;
      bytes[sharded] = rank.arena().bytes();
    });
  }
  EXPECT_EQ(digests[0], digests[1]);
  // Half of the moments and averages, but for the padding of two sections.
  constexpr uint64_t kPadding = size_t{4} * 2 * 2 * 32;
  EXPECT_LE(bytes[1].moments, bytes[0].moments / 2 + 2 * kPadding);
  EXPECT_LE(bytes[1].ema, bytes[0].ema / 2 + kPadding);
  EXPECT_LE(bytes[1].gradients, bytes[0].gradients + 2 * kPadding);
  if (GetParam().bf16) {
    EXPECT_LT(bytes[1].weights, bytes[0].weights * 3 / 4);
  }
}

// What a divided state is saved as can be gone on with by any number of processes, divided or not, and the reverse.
TEST_P(Sharded, GoesOnFromACheckpointOfAnyOther) {
  constexpr int kBefore = 3, kAfter = 3;
  std::string whole;
  expect_ranks(2, [&](ProcessGroup& group) {
    Rank rank(GetParam(), false, group);
    rank.steps(kBefore + kAfter);
    const std::string own = digest(rank.arena());
    if (group.rank() == 0) whole = own;
  });
  for (const auto& [before, after] : {std::pair(false, true), std::pair(true, false), std::pair(true, true)}) {
    const TemporaryFolder folder;
    expect_ranks(2, [&, before = before](ProcessGroup& group) {
      Rank rank(GetParam(), before, group, folder.path());
      rank.steps(kBefore);
      rank.trainer->save();
    });
    std::string resumed;
    expect_ranks(2, [&, after = after](ProcessGroup& group) {
      Rank rank(GetParam(), after, group);
      rank.trainer->resume(*RunDirectory::peek(folder.path()));
      rank.steps(kAfter);
      const std::string own = digest(rank.arena());
      if (group.rank() == 0) resumed = own;
    });
    EXPECT_EQ(resumed, whole) << before << after;
  }
}

// The state is put together for it and taken apart: other numbers of parts have other padding.
TEST_P(Sharded, KeepsEveryNumberWhateverTheNumberOfProcesses) {
  const TemporaryFolder folder;
  std::string saved;
  {
    ProcessGroup alone;
    Rank rank(GetParam(), true, alone, folder.path());
    EXPECT_FALSE(rank.arena().divided()) << "one process has nobody to divide with";
    rank.steps(3);
    rank.trainer->save();
    saved = digest(rank.arena());
  }
  for (const int64_t world : {2, 4}) {
    expect_ranks(world, [&](ProcessGroup& group) {
      Rank rank(GetParam(), true, group);
      rank.trainer->resume(*RunDirectory::peek(folder.path()));
      const std::string own = digest(rank.arena());
      if (group.rank() == 0) {
        EXPECT_EQ(own, saved) << world;
      }
      EXPECT_EQ(rank.arena().weights().empty(), group.rank() != 0);
    });
  }
}

// The averaged weights are all there while they are in use, and nothing has changed afterwards.
TEST_P(Sharded, ShowsTheAveragedWeightsEverywhere) {
  std::mutex mutex;
  std::map<std::string, at::Tensor> averages;
  expect_ranks(2, [&](ProcessGroup& group) {
    Rank rank(GetParam(), true, group);
    rank.steps(3);
    const std::string before = digest(rank.arena());
    const double norm = rank.arena().weight_norm();
    const std::vector<NamedTensor> ema = rank.arena().ema();
    if (group.rank() == 0) {
      const std::lock_guard<std::mutex> lock(mutex);
      for (const NamedTensor& item : ema) averages[item.name] = item.tensor;
    }
    group.sum(at::zeros({1}), "rank 0's averages");
    {
      const ParameterArena::UseEma use(rank.arena());
      rank.arena().check_aliasing();
      const auto shown = rank.arena().trained_parameters();
      const std::vector<NamedTensor> names = rank.arena().gradients();
      for (size_t i = 0; i < shown.size(); ++i) {
        EXPECT_TRUE(at::equal(shown[i].detach(), averages.at(names[i].name).to(shown[i].scalar_type())))
            << names[i].name;
      }
    }
    rank.arena().check_aliasing();
    EXPECT_EQ(rank.arena().weight_norm(), norm);
    EXPECT_EQ(digest(rank.arena()), before);
    rank.steps(1);
    rank.arena().weights_from_ema();
    const std::vector<NamedTensor> weights = rank.arena().weights(), last = rank.arena().ema();
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_TRUE(at::equal(weights[i].tensor, last[i].tensor)) << i;
  });
}

INSTANTIATE_TEST_SUITE_P(Setups, Sharded,
                         ::testing::Values(ShardedRun{"fp32"}, ShardedRun{"bf16", true},
                                           ShardedRun{"nested", true, true, {{"use_double_loss", "true"}}}),
                         [](const auto& test) { return std::string(test.param.name); });

// A frozen level is kept whole by everyone.
TEST(ShardedFrozen, GivesTheBitsOfTheUndividedState) {
  const ShardedRun setup{"frozen", true, true, {{"freeze_inner_unet", "true"}}};
  std::string digests[2];
  for (const bool sharded : {false, true}) {
    expect_ranks(2, [&](ProcessGroup& group) {
      Rank rank(setup, sharded, group);
      rank.steps(4);
      const std::string own = digest(rank.arena());
      if (group.rank() == 0) digests[sharded] = own;
    });
  }
  EXPECT_EQ(digests[0], digests[1]);
}

// What is sent is what ZeRO-1 promises: each gradient and each weight once a step.
TEST(ShardedTraffic, IsOneReduceScatterAndOneAllGatherABucket) {
  using Collective = ProcessGroup::Collective;
  for (const bool bf16 : {false, true}) {
    expect_ranks(2, [&](ProcessGroup& group) {
      Rank rank({"traffic", bf16}, true, group);
      rank.steps(1);
      const auto scattered = group.traffic(Collective::kReduceScatter),
                 gathered = group.traffic(Collective::kAllGather);
      rank.steps(1);
      const size_t buckets = rank.arena().buckets().size();
      const uint64_t numbers = static_cast<uint64_t>(rank.arena().flat_gradients().numel());
      EXPECT_GT(buckets, 5U);
      EXPECT_EQ(group.traffic(Collective::kReduceScatter).calls - scattered.calls, buckets);
      EXPECT_EQ(group.traffic(Collective::kReduceScatter).bytes - scattered.bytes, 4 * numbers);
      EXPECT_EQ(group.traffic(Collective::kAllGather).calls - gathered.calls, buckets);
      const uint64_t sent = group.traffic(Collective::kAllGather).bytes - gathered.bytes;
      if (bf16) {
        EXPECT_LT(sent, 3 * numbers) << "most weights go as bfloat16";
      } else {
        EXPECT_EQ(sent, 4 * numbers);
      }
    });
  }
}

}  // namespace
}  // namespace mdm::training_test
