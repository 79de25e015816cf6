// The random numbers as a statistician sees them, and how exact the polynomials are.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "core/philox_math.h"
#include "mdm/core/random.h"

namespace mdm {
namespace {

constexpr size_t kCount = size_t{1} << 20;

std::vector<float> draw(const RandomAddress& address, size_t count = kCount) {
  std::vector<float> numbers(count);
  random_normal(address, 0, numbers.data(), count);
  return numbers;
}

double correlation(const std::vector<float>& a, const std::vector<float>& b, size_t lag = 0) {
  double sum = 0;
  for (size_t i = 0; i + lag < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i + lag];
  return sum / static_cast<double>(a.size() - lag);
}

// Addresses that differ from the first one in one field each.
std::vector<RandomAddress> neighbours() {
  std::vector<RandomAddress> addresses(1);
  const auto add = [&](auto change) {
    addresses.push_back(addresses.front());
    change(addresses.back());
  };
  add([](RandomAddress& a) { a.seed = 1; });
  add([](RandomAddress& a) { a.seed = uint64_t{1} << 32; });
  add([](RandomAddress& a) { a.attempt = 1; });
  add([](RandomAddress& a) { a.step = 1; });
  add([](RandomAddress& a) { a.step = uint64_t{1} << 32; });
  add([](RandomAddress& a) { a.sample = 1; });
  add([](RandomAddress& a) { a.sample = uint64_t{1} << 32; });
  add([](RandomAddress& a) { a.layer = 1; });
  for (uint32_t stream = 2; stream <= 8; ++stream) {
    add([&](RandomAddress& a) { a.stream = static_cast<RandomStream>(stream); });
  }
  return addresses;
}

TEST(RandomQuality, MomentsAreThoseOfTheNormalDistribution) {
  double moment[5] = {};
  for (const float x : draw(RandomAddress{})) {
    double power = 1;
    for (double& m : moment) {
      m += power;
      power *= x;
    }
  }
  for (double& m : moment) m /= kCount;
  const double sigma = 1 / std::sqrt(static_cast<double>(kCount));  // bounds are five standard deviations
  EXPECT_NEAR(moment[1], 0, 5 * sigma);
  EXPECT_NEAR(moment[2], 1, 5 * std::sqrt(2.0) * sigma);
  EXPECT_NEAR(moment[3], 0, 5 * std::sqrt(15.0) * sigma);
  EXPECT_NEAR(moment[4], 3, 5 * std::sqrt(96.0) * sigma);
}

TEST(RandomQuality, KolmogorovSmirnov) {
  for (const RandomAddress& address : {neighbours()[0], neighbours()[1], neighbours()[6]}) {
    std::vector<float> numbers = draw(address);
    std::sort(numbers.begin(), numbers.end());
    double distance = 0;
    for (size_t i = 0; i < kCount; ++i) {
      const double expected = 0.5 * std::erfc(-numbers[i] / std::sqrt(2.0));
      distance = std::max({distance, std::abs(expected - static_cast<double>(i) / kCount),
                           std::abs(expected - static_cast<double>(i + 1) / kCount)});
    }
    EXPECT_LT(distance * std::sqrt(static_cast<double>(kCount)), 1.95);  // p = 0.001
  }
}

TEST(RandomQuality, TailsAreThere) {
  const std::vector<float> numbers = draw(RandomAddress{}, 4 * kCount);
  const auto beyond = [&](float bound) {
    return std::count_if(numbers.begin(), numbers.end(), [&](float x) { return std::abs(x) > bound; });
  };
  const double expected4 = 4 * kCount * std::erfc(4 / std::sqrt(2.0));  // 265.7
  EXPECT_NEAR(static_cast<double>(beyond(4)), expected4, 5 * std::sqrt(expected4));
  EXPECT_LE(beyond(6.7f), 0);
}

TEST(RandomQuality, NeighboursInASequenceAreUncorrelated) {
  const std::vector<float> numbers = draw(RandomAddress{});
  for (size_t lag = 1; lag <= 8; ++lag) {
    EXPECT_LT(std::abs(correlation(numbers, numbers, lag)), 5 / std::sqrt(static_cast<double>(kCount))) << lag;
  }
}

TEST(RandomQuality, SequencesOfDifferentAddressesAreIndependent) {
  const size_t count = 1 << 16;
  const auto addresses = neighbours();
  std::vector<std::vector<float>> sequences;
  std::set<uint32_t> first_words;
  for (const RandomAddress& address : addresses) {
    sequences.push_back(draw(address, count));
    uint32_t word = 0;
    random_bits(address, 0, &word, 1);
    EXPECT_TRUE(first_words.insert(word).second);
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      for (const size_t lag : {0, 1}) {
        EXPECT_LT(std::abs(correlation(sequences[i], sequences[j], lag)), 5 / std::sqrt(static_cast<double>(count)))
            << "addresses " << i << " and " << j << ", lag " << lag;
      }
    }
  }
}

// The header states what a run over every float found; here every 97th.
TEST(RandomAccuracy, Logarithm) {
  double worst = 0;
  for (uint32_t bits = philox::bits_of(0x1p-32f); bits < philox::bits_of(1.0f); bits += 97) {
    const float u = philox::float_of(bits);
    const double exact = std::log(static_cast<double>(u));
    worst = std::max(worst, std::abs((philox::log_normal_range(u) - exact) / exact));
  }
  EXPECT_LT(worst, 8.1e-8);
  EXPECT_EQ(philox::log_normal_range(1.0f), 0.0f);
}

TEST(RandomAccuracy, SineAndCosine) {
  double worst = 0;
  double worst_relative = 0;
  for (uint64_t word = 0; word < (uint64_t{1} << 32); word += 2003) {
    float cosine = 0;
    float sine = 0;
    philox::turn(static_cast<uint32_t>(word), cosine, sine);
    const long double t = 2 * 3.14159265358979323846264338327950288L * (static_cast<long double>(word) / 4294967296.0L);
    const auto exact_sine = static_cast<double>(std::sin(t));
    const auto exact_cosine = static_cast<double>(std::cos(t));
    worst = std::max({worst, std::abs(sine - exact_sine), std::abs(cosine - exact_cosine)});
    if (word % 0x40000000 != 0) {
      worst_relative = std::max({worst_relative, std::abs(sine / exact_sine - 1), std::abs(cosine / exact_cosine - 1)});
    }
  }
  EXPECT_LT(worst, 1.1e-7);
  EXPECT_LT(worst_relative, 1.8e-7);
}

TEST(RandomAccuracy, QuarterTurnsAreExact) {
  const float expected[4][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
  for (uint32_t quarter = 0; quarter < 4; ++quarter) {
    float cosine = 0;
    float sine = 0;
    philox::turn(quarter << 30, cosine, sine);
    EXPECT_EQ(cosine, expected[quarter][0]);
    EXPECT_EQ(sine, expected[quarter][1]);
  }
}

}  // namespace
}  // namespace mdm
