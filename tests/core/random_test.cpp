// The bits of the random numbers: known answers, addressing, and equality of all ways to make them.
#include "mdm/core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "core/random_paths.h"

namespace mdm {
namespace {

using detail::RandomPath;

RandomAddress sample_address() {
  RandomAddress address;
  address.seed = 0x0123456789ABCDEFull;
  address.attempt = 3;
  address.step = 0x100000002ull;
  address.sample = 0x300000004ull;
  address.stream = RandomStream::kStep;
  address.layer = 2;
  return address;
}

// FNV-1a over the bytes in little-endian order.
template <typename Number>
uint64_t hash_of(const std::vector<Number>& numbers) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const Number& number : numbers) {
    uint32_t bits = 0;
    std::memcpy(&bits, &number, sizeof bits);
    for (int byte = 0; byte < 4; ++byte) hash = (hash ^ (bits >> (8 * byte) & 0xFF)) * 0x100000001B3ull;
  }
  return hash;
}

std::vector<float> normals(const RandomAddress& address, uint64_t first, size_t count) {
  std::vector<float> numbers(count);
  random_normal(address, first, numbers.data(), count);
  return numbers;
}

std::vector<uint32_t> words(const RandomAddress& address, uint64_t first, size_t count) {
  std::vector<uint32_t> numbers(count);
  random_bits(address, first, numbers.data(), count);
  return numbers;
}

// The known answers that come with Random123 (kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  EXPECT_EQ(philox4x32({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, {0xFFFFFFFF, 0xFFFFFFFF}),
            (Words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(philox4x32({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
            (Words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

// The address as the header writes it, spelt out once more.
TEST(RandomBits, AreAddressedAsDocumented) {
  const RandomAddress address = sample_address();
  const auto key = philox4x32({2, 1, 3, 2}, {0x89ABCDEF, 0x01234567});
  for (const uint64_t n : {0ull, 1ull, 6ull, 0x3FFFFFFFFull, 0x400000003ull, 0xFFFFFFFFFFFFFFFEull}) {
    const uint64_t block = n / 4;
    const auto four = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 4, 3},
                                 {key[0] ^ static_cast<uint32_t>(RandomStream::kStep), key[1]});
    EXPECT_EQ(words(address, n, 1)[0], four[n % 4]) << n;
  }
}

TEST(RandomNormal, StoredHashes) {
  EXPECT_EQ(hash_of(normals(RandomAddress{}, 0, 1 << 16)), 0xD5B87EEA5AE531CAull);
  EXPECT_EQ(hash_of(normals(sample_address(), 0, 1 << 16)), 0x7D9C3D301D710104ull);
}

TEST(RandomNormal, FollowsTheDocumentedTransform) {
  const size_t count = 1 << 16;
  const auto bits = words(sample_address(), 0, count);
  const auto numbers = normals(sample_address(), 0, count);
  for (size_t i = 0; i < count; i += 2) {
    const double u = static_cast<float>((bits[i] / 2 + 0.5) * 0x1p-31);
    const double r = std::sqrt(-2 * std::log(u));
    const double t = 2 * M_PI * (bits[i + 1] / 4294967296.0);
    ASSERT_NEAR(numbers[i], r * std::cos(t), 7.0e-7) << i;
    ASSERT_NEAR(numbers[i + 1], r * std::sin(t), 7.0e-7) << i;
  }
}

TEST(RandomUniform, FollowsTheDocumentedRuleAndIsOpen) {
  const size_t count = 1 << 16;
  const auto bits = words(sample_address(), 0, count);
  std::vector<float> numbers(count);
  random_uniform(sample_address(), 0, numbers.data(), count);
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(numbers[i], (bits[i] / 512 + 0.5) * 0x1p-23) << i;
  EXPECT_GT(philox::uniform(0), 0.0f);
  EXPECT_EQ(philox::uniform(0xFFFFFFFF), 1.0f - 0x1p-24f);
}

class RandomPaths : public testing::TestWithParam<RandomPath> {};

TEST_P(RandomPaths, GiveTheBitsOfTheScalarDefinition) {
  if (!detail::random_path_available(GetParam())) GTEST_SKIP() << "this processor lacks the instructions";
  for (const RandomAddress& address : {RandomAddress{}, sample_address()}) {
    const philox::Sequence sequence = detail::random_sequence(address);
    const size_t count = 40000;  // not a multiple of what a vector loop takes
    for (const uint64_t first : {uint64_t{0}, uint64_t{3}, (uint64_t{1} << 34) - 4 * 1000 - 2}) {
      std::vector<uint32_t> bits(count);
      std::vector<float> uniform(count);
      std::vector<float> normal(count);
      detail::random_bits_on(GetParam(), address, first, bits.data(), count);
      detail::random_uniform_on(GetParam(), address, first, uniform.data(), count);
      detail::random_normal_on(GetParam(), address, first, normal.data(), count);
      for (size_t i = 0; i < count; ++i) {
        const uint64_t n = first + i;
        const uint64_t block = n / 4;
        const philox::Words four =
            philox::block_words(sequence, static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32));
        const uint32_t word[] = {four.a, four.b, four.c, four.d};
        const philox::Floats pairs = philox::normals(four);
        const float value[] = {pairs.a, pairs.b, pairs.c, pairs.d};
        ASSERT_EQ(bits[i], word[n % 4]) << n;
        ASSERT_EQ(philox::bits_of(uniform[i]), philox::bits_of(philox::uniform(word[n % 4]))) << n;
        ASSERT_EQ(philox::bits_of(normal[i]), philox::bits_of(value[n % 4])) << n;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RandomPaths,
                         testing::Values(RandomPath::kPortable, RandomPath::kAvx2, RandomPath::kAvx512));

TEST(RandomNormal, AnySplitGivesTheSameNumbers) {
  const RandomAddress address = sample_address();
  const size_t count = 1000;
  const auto whole = normals(address, 5, count);
  for (size_t piece = 1; piece < 70; ++piece) {
    std::vector<float> joined(count);
    for (size_t i = 0; i < count; i += piece) {
      random_normal(address, 5 + i, joined.data() + i, std::min(piece, count - i));
    }
    ASSERT_EQ(hash_of(joined), hash_of(whole)) << "pieces of " << piece;
  }
}

TEST(RandomNormal, WritesNothingOutsideItsRange) {
  std::vector<float> guarded(64, 99.0f);
  for (size_t first = 0; first < 5; ++first) {
    for (size_t count = 0; count < 40; ++count) {
      std::fill(guarded.begin(), guarded.end(), 99.0f);
      random_normal(RandomAddress{}, first, guarded.data() + 8, count);
      for (size_t i = 0; i < guarded.size(); ++i) {
        if (i < 8 || i >= 8 + count) {
          ASSERT_EQ(guarded[i], 99.0f) << first << " " << count << " " << i;
        }
      }
    }
  }
}

TEST(RandomBelow, IsTheHighHalfOfTheProduct) {
  const RandomAddress address = sample_address();
  for (const uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{7}, uint64_t{1} << 40}) {
    const auto pair = words(address, 2 * index, 2);
    const uint64_t bits = static_cast<uint64_t>(pair[1]) << 32 | pair[0];
    EXPECT_EQ(random_below(address, index, 1), 0u);
    EXPECT_EQ(random_below(address, index, uint64_t{1} << 32), bits >> 32);
    EXPECT_EQ(random_below(address, index, uint64_t{1} << 63), bits >> 1);
  }
  std::vector<int> histogram(10);
  for (uint64_t i = 0; i < 100000; ++i) ++histogram.at(random_below(address, i, 10));
  for (const int bin : histogram) EXPECT_NEAR(bin, 10000, 500);
}

}  // namespace
}  // namespace mdm
