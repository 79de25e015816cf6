// Memory that is kept for the next tensor: reuse, bounds, threads.
#include "mdm/ops/memory.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "ops/kept_memory.h"

namespace mdm::ops {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(BlockCache, GivesTheSameMemoryAgain) {
  BlockCache cache;
  void* first = cache.take(10 * kMiB);
  std::memset(first, 1, 10 * kMiB);
  EXPECT_TRUE(cache.give_back(first));
  EXPECT_EQ(cache.take(10 * kMiB - 5000), first) << "a block serves for a little less as well";
  EXPECT_TRUE(cache.give_back(first));
  void* other = cache.take(5 * kMiB);
  EXPECT_NE(other, first) << "half of a block would be wasted";
  EXPECT_TRUE(cache.give_back(other));
  const KeptMemory state = cache.state();
  EXPECT_EQ(state.in_use, 0u);
  EXPECT_EQ(state.kept, 15 * kMiB);
  EXPECT_EQ(state.most_in_use, 10 * kMiB);
  EXPECT_EQ(state.fresh_blocks, 2u);
  EXPECT_EQ(state.reused_blocks, 1u);
  cache.release();
  EXPECT_EQ(cache.state().kept, 0u);
}

TEST(BlockCache, KnowsItsOwnBlocks) {
  BlockCache cache;
  char* block = static_cast<char*>(cache.take(2 * kMiB));
  EXPECT_FALSE(cache.give_back(block + 4096));
  EXPECT_FALSE(cache.give_back(block + 64));
  int on_stack = 0;
  EXPECT_FALSE(cache.give_back(&on_stack));
  EXPECT_TRUE(cache.give_back(block));
  EXPECT_FALSE(cache.give_back(block)) << "given back twice";
}

TEST(BlockCache, KeepsNoMoreThanAQuarterAboveWhatWasInUse) {
  BlockCache cache;
  std::mt19937 random(1);
  std::vector<void*> held;
  for (int i = 0; i < 2000; ++i) {
    const size_t size = kMiB + random() % (24 * kMiB);
    held.push_back(cache.take(size));
    static_cast<char*>(held.back())[size - 1] = 1;
    while (held.size() > random() % 24) {
      EXPECT_TRUE(cache.give_back(held.back()));
      held.pop_back();
    }
    const KeptMemory state = cache.state();
    EXPECT_LE(state.in_use + state.kept, state.most_in_use + std::max(state.most_in_use / 4, 64 * kMiB));
  }
  for (void* block : held) EXPECT_TRUE(cache.give_back(block));
  EXPECT_GT(cache.state().reused_blocks, 0u);
  EXPECT_EQ(cache.state().in_use, 0u);
}

TEST(BlockCache, SaysWhenThereIsNoMemory) {
  BlockCache cache;
  EXPECT_THROW(cache.take(size_t{1} << 60), c10::OutOfMemoryError);
  EXPECT_EQ(cache.state().in_use, 0u);
}

TEST(BlockCache, ServesThreads) {
  BlockCache cache;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 500; ++i) {
        const size_t size = kMiB + random() % (4 * kMiB);
        auto* block = static_cast<unsigned char*>(cache.take(size));
        block[0] = block[size - 1] = static_cast<unsigned char>(t);
        std::this_thread::yield();
        EXPECT_EQ(block[0], t);
        EXPECT_EQ(block[size - 1], t);
        EXPECT_TRUE(cache.give_back(block));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(cache.state().in_use, 0u);
}

}  // namespace
}  // namespace mdm::ops
