#include "mdm/data/batch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "data/test_data.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using data_test::TemporaryFolder;

// Captions with 1 + i % period words.
CaptionTable table_of(int samples, int period = 1, const std::vector<int64_t>& buckets = {}, int64_t most = -1) {
  const TemporaryFolder folder;
  std::vector<int> counts;
  for (int i = 0; i < samples; ++i) counts.push_back(1 + i % period);
  ReaderConfig reader;
  reader.token_buckets = buckets;
  reader.max_token_length = most;
  return CaptionTable::make(*data_test::captions_alone(folder, counts), data_test::word_tokenizer().get(), reader);
}

ReaderConfig buckets_config(const std::vector<int64_t>& buckets) {
  ReaderConfig reader;
  reader.token_buckets = buckets;
  return reader;
}

bool same(const std::vector<PlannedSample>& a, const std::vector<PlannedSample>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const PlannedSample& x, const PlannedSample& y) {
    return x.sample == y.sample && x.number == y.number;
  });
}

TEST(KeyedPermutation, IsOneForEverySize) {
  for (uint64_t n = 1; n <= 300; n = n < 20 ? n + 1 : n * 3 / 2) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      const KeyedPermutation order(n, seed, 7, 3);
      std::set<uint64_t> seen;
      for (uint64_t i = 0; i < n; ++i) seen.insert(order(i));
      EXPECT_EQ(seen.size(), n);
      EXPECT_LT(*seen.rbegin(), n);
    }
  }
  const KeyedPermutation large(uint64_t{1} << 40, 1, 0, 0);
  EXPECT_NE(large(0), large(1));
}

// All orders of four things are equally likely: chi-square with 23 degrees of freedom, 99.99 % point 57.
TEST(KeyedPermutation, AllOrdersAreEquallyLikely) {
  std::map<std::vector<uint64_t>, int> counts;
  constexpr int kRuns = 24000;
  for (int seed = 0; seed < kRuns; ++seed) {
    const KeyedPermutation order(4, static_cast<uint64_t>(seed), 0, 0);
    ++counts[{order(0), order(1), order(2), order(3)}];
  }
  ASSERT_EQ(counts.size(), 24U);
  double chi = 0;
  for (const auto& [order, count] : counts) chi += std::pow(count - kRuns / 24.0, 2) / (kRuns / 24.0);
  EXPECT_LT(chi, 57);
}

// Neighbours end up far apart and epochs have nothing to do with each other: correlations of 10,000 places are within
// five standard deviations (0.01 each).
TEST(KeyedPermutation, HasNoMemory) {
  constexpr uint64_t kSize = 10000;
  const KeyedPermutation a(kSize, 3, 0, 0), b(kSize, 3, 1, 0), c(kSize, 4, 0, 0), d(kSize, 3, 0, 1);
  const auto correlation = [](auto first, auto second) {
    double sum = 0;
    for (uint64_t i = 0; i < kSize; ++i) sum += (first(i) - kSize / 2.0) * (second(i) - kSize / 2.0);
    return sum / kSize / (static_cast<double>(kSize) * kSize / 12);
  };
  const auto identity = [](uint64_t i) { return static_cast<double>(i); };
  const auto values = [](const KeyedPermutation& order) {
    return [&order](uint64_t i) { return static_cast<double>(order(i)); };
  };
  const auto next = [&](uint64_t i) { return static_cast<double>(a((i + 1) % kSize)); };
  EXPECT_LT(std::abs(correlation(values(a), identity)), 0.05);
  EXPECT_LT(std::abs(correlation(values(a), values(b))), 0.05);
  EXPECT_LT(std::abs(correlation(values(a), values(c))), 0.05);
  EXPECT_LT(std::abs(correlation(values(a), values(d))), 0.05);
  EXPECT_LT(std::abs(correlation(values(a), next)), 0.05);
}

TEST(BatchPlan, EverySampleOncePerEpochAndNoShortBatch) {
  for (const int samples : {1, 7, 32, 100}) {
    for (const int64_t rows : {1, 3, 8, 32, 50}) {
      const CaptionTable captions = table_of(samples);
      const BatchPlan plan(captions, {}, 5, rows);
      const auto size = static_cast<uint64_t>(samples);
      std::vector<size_t> stream;
      for (uint64_t step = 0; stream.size() < 4 * size; ++step) {
        for (const auto& row : plan.batch(step)) {
          EXPECT_EQ(row.number, stream.size());  // one bucket: rows are numbered in order
          stream.push_back(row.sample);
        }
      }
      std::set<std::vector<size_t>> orders;
      for (uint64_t e = 0; e < 4; ++e) {
        const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(e * size);
        std::vector<size_t> epoch(begin, begin + samples);
        orders.insert(epoch);
        std::sort(epoch.begin(), epoch.end());
        for (size_t i = 0; i < size; ++i) ASSERT_EQ(epoch[i], i);
      }
      if (samples >= 32) {
        EXPECT_EQ(orders.size(), 4U);
      }
    }
  }
}

TEST(BatchPlan, WithoutShufflingTheOrderOfTheList) {
  ReaderConfig reader;
  reader.shuffle = false;
  const BatchPlan plan(table_of(5), reader, 5, 3);
  size_t expected = 0;
  for (uint64_t step = 0; step < 10; ++step) {
    for (const auto& row : plan.batch(step)) EXPECT_EQ(row.sample, expected++ % 5);
  }
}

TEST(BatchPlan, LongCaptionsAreLeftOut) {
  const BatchPlan plan(table_of(20, 4, {}, 3), {}, 1, 4);
  EXPECT_EQ(plan.samples(), 10U);
  for (const auto& row : plan.batch(3)) EXPECT_LT(row.sample % 4, 2U);
  EXPECT_THROW(BatchPlan(table_of(4, 1, {}, 1), {}, 1, 4), ConfigError);
  EXPECT_THROW(BatchPlan(table_of(4), {}, 1, 0), ConfigError);
}

TEST(BatchPlan, SlicesAreThoseOfTheWholeBatch) {
  const std::vector<int64_t> buckets = {4, 8, 16};
  const BatchPlan plan(table_of(97, 12, buckets), buckets_config(buckets), 9, 8);
  for (const int64_t world : {1, 2, 4}) {
    for (uint64_t step = 0; step < 60; ++step) {
      std::vector<PlannedSample> joined;
      for (int64_t rank = 0; rank < world; ++rank) {
        const auto part = plan.slice(step, rank * 8 / world, 8 / world);
        joined.insert(joined.end(), part.begin(), part.end());
      }
      EXPECT_TRUE(same(joined, plan.batch(step)));
    }
  }
  EXPECT_THROW(plan.slice(0, 5, 4), Error);
  EXPECT_THROW(plan.slice(0, -1, 2), Error);
}

// With buckets: batches hold captions of their bucket, and each bucket's stream has every sample once an epoch.
TEST(BatchPlan, Buckets) {
  const std::vector<int64_t> buckets = {4, 8, 64};
  const CaptionTable captions = table_of(210, 13, buckets);
  const BatchPlan plan(captions, buckets_config(buckets), 9, 8);
  std::map<int64_t, std::map<uint64_t, std::multiset<size_t>>> seen;  // bucket, epoch
  std::set<uint64_t> numbers;
  const uint64_t steps = plan.first_step(6);
  EXPECT_NEAR(static_cast<double>(steps), 6 * 210 / 8.0, 3);
  std::vector<int64_t> lengths;
  for (uint64_t step = 0; step < steps; ++step) {
    const int64_t length = plan.token_length(step);
    lengths.push_back(length);
    for (const auto& row : plan.batch(step)) {
      const int64_t tokens = captions.tokens(row.sample);
      EXPECT_LE(tokens, length);
      EXPECT_TRUE(length == 4 || tokens > length / 2 || length == 64);
      EXPECT_TRUE(length != 64 || tokens > 8);
      EXPECT_TRUE(numbers.insert(row.number).second);
      seen[length][row.number / 210].insert(row.sample);
    }
  }
  for (const auto& [length, epochs] : seen) {
    const size_t all = epochs.at(0).size();
    for (uint64_t e = 0; e < 5; ++e) {
      EXPECT_EQ(epochs.at(e), epochs.at(0)) << "bucket " << length << " epoch " << e;
      EXPECT_EQ(std::set<size_t>(epochs.at(e).begin(), epochs.at(e).end()).size(), all);
    }
  }
  EXPECT_FALSE(std::is_sorted(lengths.begin(), lengths.begin() + 26));  // buckets are mixed
}

// The same bucket's batches come in every epoch as often as its share says, wherever the epochs begin.
TEST(BatchPlan, EpochsAndSteps) {
  const std::vector<int64_t> buckets = {4, 8, 64};
  for (const int64_t rows : {1, 5, 64, 1000}) {
    const BatchPlan plan(table_of(101, 13, buckets), buckets_config(buckets), 2, rows);
    EXPECT_EQ(plan.first_step(0), 0U);
    uint64_t last = 0;
    for (uint64_t step = 0; step < 200; ++step) {
      const uint64_t epoch = plan.epoch(step);
      EXPECT_GE(epoch, last);
      EXPECT_LE(plan.first_step(epoch), step);
      EXPECT_GT(plan.first_step(epoch + 1), step);
      last = epoch;
    }
    // Far out nothing overflows, and the plan still answers at once.
    const uint64_t far = uint64_t{1} << 40;
    EXPECT_LE(plan.first_step(plan.epoch(far)), far);
    EXPECT_EQ(plan.batch(far).size(), static_cast<size_t>(rows));
  }
}

// Stopping at any step: a plan made anew gives the same steps.
TEST(BatchPlan, IsAPureFunction) {
  const std::vector<int64_t> buckets = {4, 8, 64};
  const CaptionTable captions = table_of(50, 13, buckets);
  const BatchPlan plan(captions, buckets_config(buckets), 11, 6);
  std::vector<std::vector<PlannedSample>> all;
  for (uint64_t step = 0; step < 40; ++step) all.push_back(plan.batch(step));
  for (uint64_t step = 40; step-- > 0;) {
    EXPECT_TRUE(same(BatchPlan(captions, buckets_config(buckets), 11, 6).batch(step), all[step]));
  }
  EXPECT_FALSE(same(BatchPlan(captions, buckets_config(buckets), 12, 6).batch(0), all[0]));
}

}  // namespace
}  // namespace mdm
