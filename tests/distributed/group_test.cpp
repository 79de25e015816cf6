// Ranks that meet, work together, and fail.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <mutex>
#include <thread>

#include "distributed/ranks.h"
#include "distributed/sockets.h"
#include "mdm/core/error.h"

namespace mdm::distributed_test {
namespace {

double seconds_of(const std::function<void()>& action) {
  const auto start = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' in: " << text;
}

TEST(Group, OfOneIsTheIdentity) {
  ProcessGroup alone;
  at::Tensor values = at::arange(5, at::kFloat);
  alone.sum(values, "sum");
  EXPECT_TRUE(at::equal(values, at::arange(5, at::kFloat)));
  EXPECT_EQ(alone.gather("text", "texts"), std::vector<std::string>{"text"});
  EXPECT_EQ(alone.first_does([] { return std::string("done"); }, "work"), "done");
}

class Groups : public ::testing::TestWithParam<int64_t> {};

TEST_P(Groups, Sum) {
  const int64_t world = GetParam();
  expect_ranks(world, [&](ProcessGroup& group) {
    EXPECT_EQ(group.size(), world);
    for (const auto dtype : {at::kFloat, at::kDouble, at::kLong, at::kBFloat16}) {
      at::Tensor values = at::arange(1000).remainder(16).to(dtype) + group.rank();
      group.sum(values, "sum");
      const at::Tensor expected = at::arange(1000).remainder(16) * world + world * (world - 1) / 2;
      EXPECT_TRUE(at::equal(values.to(at::kLong), expected)) << dtype;
    }
  });
}

TEST_P(Groups, SumsOverlapAndKeepTheirOrder) {
  expect_ranks(GetParam(), [&](ProcessGroup& group) {
    std::vector<at::Tensor> values;
    std::vector<std::unique_ptr<ProcessGroup::Pending>> pending;
    for (int i = 0; i < 20; ++i) {
      values.push_back(at::full({1 + 997 * i}, static_cast<double>(i + 1)));
      pending.push_back(group.begin_sum(values.back(), "sum"));
    }
    for (size_t i = values.size(); i-- > 0;) pending[i]->wait();
    for (int i = 0; i < 20; ++i) {
      const double expected = static_cast<double>((i + 1) * group.size());
      EXPECT_EQ(values[static_cast<size_t>(i)].min().item<double>(), expected);
      EXPECT_EQ(values[static_cast<size_t>(i)].max().item<double>(), expected);
    }
  });
}

TEST_P(Groups, ShareTextsAndTensors) {
  expect_ranks(GetParam(), [&](ProcessGroup& group) {
    for (int round = 0; round < 3; ++round) {
      const auto texts = group.gather(concat("rank ", group.rank(), " round ", round), "texts");
      ASSERT_EQ(texts.size(), static_cast<size_t>(group.size()));
      for (size_t rank = 0; rank < texts.size(); ++rank)
        EXPECT_EQ(texts[rank], concat("rank ", rank, " round ", round));
      EXPECT_EQ(group.from_first(concat(group.rank(), round), "text"), concat(0, round));
      at::Tensor values = at::full({3}, static_cast<double>(group.rank() + 1));
      group.broadcast(values, "tensor");
      EXPECT_EQ(values.sum().item<double>(), 3);
    }
  });
}

TEST_P(Groups, HearWhatRankZeroFailsWith) {
  const auto thrown = run_ranks(GetParam(), [](ProcessGroup& group) {
    group.first_does([]() -> std::string { fail<CheckpointError>("no such folder"); }, "work");
  });
  EXPECT_EQ(message(thrown[0]), "no such folder");
  EXPECT_THROW(std::rethrow_exception(thrown[0]), CheckpointError);
  for (size_t rank = 1; rank < thrown.size(); ++rank) {
    EXPECT_THROW(std::rethrow_exception(thrown[rank]), DistributedError);
    EXPECT_EQ(message(thrown[rank]), "rank 0: no such folder");
  }
}

INSTANTIATE_TEST_SUITE_P(Of, Groups, ::testing::Values(2, 4), ::testing::PrintToStringParamName());

// One leaves with its reason; the others hear it from their collective, in seconds.
TEST(Group, SaysWhyAProcessHasLeft) {
  std::vector<std::exception_ptr> thrown;
  const double seconds = seconds_of([&] {
    thrown = run_ranks(3, [](ProcessGroup& group) {
      group.set_place("step 7");
      if (group.rank() == 1) {
        group.leave("its disk is full");
        fail("gone");
      }
      at::Tensor values = at::ones({100});
      group.sum(values, "sum of gradients");
    });
  });
  EXPECT_LT(seconds, 30);
  for (const size_t rank : {0, 2}) {
    EXPECT_THROW(std::rethrow_exception(thrown[rank]), DistributedError);
    const std::string text = message(thrown[rank]);
    expect_in(text, concat("rank ", rank, " on "));
    expect_in(text, "at step 7: sum of gradients failed: ");
    expect_in(text, "rank 1 on ");
    expect_in(text, "its disk is full");
  }
}

// One doesn't come to the collective (it does something else for too long): the time-out says where it is instead.
TEST(Group, SaysWhoIsElsewhere) {
  DistributedConfig config;
  config.collective_timeout = 2;
  std::vector<std::exception_ptr> thrown;
  std::mutex asleep;
  asleep.lock();
  const double seconds = seconds_of([&] {
    thrown = run_ranks(
        2,
        [&](ProcessGroup& group) {
          group.set_place(group.rank() == 1 ? "step 3" : "step 4");
          if (group.rank() == 1) {
            const std::lock_guard<std::mutex> wait(asleep);
            return;
          }
          at::Tensor values = at::ones({100});
          try {
            group.sum(values, "sum of losses");
          } catch (...) {
            asleep.unlock();
            throw;
          }
        },
        config);
  });
  EXPECT_LT(seconds, 40);
  const std::string text = message(thrown[0]);
  expect_in(text, "at step 4: sum of losses failed: ");
  expect_in(text, "rank 1 on ");
  expect_in(text, "is at step 3");
}

TEST(Meeting, OfTwoProcessesWithOneRankFails) {
  const int64_t port = free_port();
  std::vector<std::string> problems(3);
  std::vector<std::thread> threads;
  const double seconds = seconds_of([&] {
    for (const size_t i : {0, 1, 2}) {
      threads.emplace_back([&, i] {
        try {
          ProcessGroup::join(local_launch(i == 0 ? 0 : 1, 3, port), {}, {});
        } catch (const DistributedError& error) {
          problems[i] = error.what();
        }
      });
    }
    for (auto& thread : threads) thread.join();
  });
  EXPECT_LT(seconds, 20);
  for (const std::string& problem : problems) expect_in(problem, "two processes say that they are rank 1 of 3");
}

TEST(Meeting, AtAPortInUseFails) {
  const int64_t port = free_port();
  const int taken = bind_for("127.0.0.1", port);
  const double seconds = seconds_of([&] {
    try {
      ProcessGroup::join(local_launch(0, 2, port), {}, {});
      ADD_FAILURE() << "met";
    } catch (const DistributedError& error) {
      expect_in(error.what(), concat("127.0.0.1:", port, ": the port is in use"));
    }
  });
  ::close(taken);
  EXPECT_LT(seconds, 5);
}

TEST(Meeting, WithoutRankZeroFails) {
  DistributedConfig config;
  config.connect_timeout = 1;
  const int64_t port = free_port();
  EXPECT_LT(seconds_of([&] {
              try {
                ProcessGroup::join(local_launch(1, 2, port), config, {});
                ADD_FAILURE() << "met";
              } catch (const DistributedError& error) {
                expect_in(error.what(), concat("no answer from rank 0 at 127.0.0.1:", port, " within 1 s"));
              }
            }),
            10);
  Launch nowhere = local_launch(1, 2, port);
  nowhere.master_addr = "no-such-host.invalid";
  EXPECT_LT(seconds_of([&] {
              try {
                ProcessGroup::join(nowhere, config, {});
                ADD_FAILURE() << "met";
              } catch (const DistributedError& error) {
                expect_in(error.what(), "no-such-host.invalid");
              }
            }),
            20);
}

TEST(Meeting, WithoutAllFails) {
  DistributedConfig config;
  config.init_timeout = 1;
  try {
    ProcessGroup::join(local_launch(0, 2, free_port()), config, {});
    ADD_FAILURE() << "met";
  } catch (const DistributedError& error) {
    expect_in(error.what(), "rank 1 is not there after 1 s");
  }
}

TEST(Meeting, OfGroupsOfOtherSizesFails) {
  const int64_t port = free_port();
  std::string problem;
  std::thread other([&] {
    try {
      Launch launch = local_launch(1, 3, port);
      ProcessGroup::join(launch, {}, {});
    } catch (const DistributedError& error) {
      problem = error.what();
    }
  });
  try {
    ProcessGroup::join(local_launch(0, 2, port), {}, {});
    ADD_FAILURE() << "met";
  } catch (const DistributedError& error) {
    expect_in(error.what(), "2 processes");
    expect_in(error.what(), "3 processes");
  }
  other.join();
  EXPECT_FALSE(problem.empty());
}

TEST(Meeting, OverAFile) {
  const auto file = std::filesystem::temp_directory_path() / concat("mdm_rendezvous_", ::getpid());
  DistributedConfig config;
  config.rendezvous_file = file.string();
  const auto thrown = run_ranks(
      2,
      [](ProcessGroup& group) {
        at::Tensor values = at::ones({3});
        group.sum(values, "sum");
        EXPECT_EQ(values.sum().item<double>(), 6);
      },
      config);
  for (const auto& problem : thrown) EXPECT_EQ(message(problem), "");
  std::error_code code;
  std::filesystem::remove(file, code);
}

}  // namespace
}  // namespace mdm::distributed_test
