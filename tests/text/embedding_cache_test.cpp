// T5's outputs on disk: the same to the bit, whatever happens to the files.
#include "mdm/text/embedding_cache.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "mdm/core/error.h"
#include "text/random_t5.h"
#include "text/text_test_support.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using Captions = std::vector<std::string>;
using Ids = std::vector<int32_t>;
using text_test::TemporaryFolder;

// A matrix that is a function of its ids.
at::Tensor matrix_of(const Ids& ids, int64_t width) {
  at::Tensor values = at::empty({static_cast<int64_t>(ids.size()), width});
  auto at = values.accessor<float, 2>();
  for (size_t i = 0; i < ids.size(); ++i) {
    for (int64_t k = 0; k < width; ++k)
      at[static_cast<int64_t>(i)][k] = static_cast<float>(ids[i]) / 3 + static_cast<float>(k) / 7;
  }
  return values;
}

Ids ids_of(int n) { return Ids(static_cast<size_t>(1 + n % 5), n); }

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_bytes(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

constexpr int64_t kWidth = 6;

class EmbeddingCacheTest : public testing::Test {
 protected:
  std::unique_ptr<EmbeddingCache> open(const std::string& identity = "t5-test") const {
    return std::make_unique<EmbeddingCache>(folder_ / "cache", identity, kWidth);
  }
  void fill(int first, int count) const {
    const auto cache = open();
    for (int n = first; n < first + count; ++n) cache->add(ids_of(n), matrix_of(ids_of(n), kWidth));
  }
  // Of ids 0 .. count - 1, those that come back; what comes back is right.
  static int found(EmbeddingCache& cache, int count) {
    int sum = 0;
    for (int n = 0; n < count; ++n) {
      const auto values = cache.find(ids_of(n));
      if (!values) continue;
      EXPECT_TRUE(values->equal(matrix_of(ids_of(n), kWidth))) << n;
      ++sum;
    }
    return sum;
  }

  TemporaryFolder folder_;
};

TEST_F(EmbeddingCacheTest, GivesBackTheSameBits) {
  fill(0, 20);
  const auto cache = open();
  EXPECT_EQ(found(*cache, 30), 20);
  EXPECT_EQ(cache->counts().hits, 20u);
  EXPECT_EQ(cache->counts().misses, 10u);
  const Ids odd = {1, 2, 3};
  const at::Tensor values = at::tensor({0.F, -0.F, 1e-42F, 3e38F, -1.F / 3, 1.F}).repeat({3, 1});
  cache->add(odd, values);
  const at::Tensor back = *open()->find(odd);
  EXPECT_EQ(std::memcmp(back.const_data_ptr(), values.contiguous().const_data_ptr(), values.nbytes()), 0);
}

TEST_F(EmbeddingCacheTest, BFloat16ValuesTakeHalfTheSpace) {
  const auto size_with = [&](const at::Tensor& values, const char* identity) {
    const auto cache = std::make_unique<EmbeddingCache>(folder_ / "sizes", identity, 64);
    cache->add(Ids(100, 7), values);
    EXPECT_TRUE(cache->find(Ids(100, 7))->equal(values));
    return static_cast<double>(fs::file_size(cache->own_file()));
  };
  const at::Tensor values = at::rand({100, 64});
  const double wide = size_with(values, "wide");
  const double narrow = size_with(values.to(at::kBFloat16).to(at::kFloat), "narrow");
  EXPECT_LT(narrow / wide, 0.52);
}

TEST_F(EmbeddingCacheTest, OtherIdentitiesAreNotLookedAt) {
  fill(0, 3);
  EXPECT_EQ(found(*open("t5-other"), 3), 0);
  EXPECT_EQ(found(*open("t5"), 3), 0) << "a name that another begins with";
  EXPECT_EQ(EmbeddingCache(folder_ / "cache", "t5-test", kWidth + 1).find(ids_of(0)), std::nullopt);
  EXPECT_THROW(open("../t5"), Error);
  EXPECT_THROW(open(""), Error);
  text_test::write_text(folder_ / "file", "");
  EXPECT_THROW(EmbeddingCache(folder_ / "file", "t5", kWidth), Error);
}

TEST_F(EmbeddingCacheTest, SeveralProcessesAddAndRead) {
  const auto first = open(), second = open();
  EXPECT_NE(first->own_file(), second->own_file());
  first->add(ids_of(1), matrix_of(ids_of(1), kWidth));
  EXPECT_FALSE(second->find(ids_of(2)));
  ::usleep(1'100'000);  // files of others are looked at once a second
  EXPECT_TRUE(second->find(ids_of(1)));
  second->add(ids_of(2), matrix_of(ids_of(2), kWidth));
  ::usleep(1'100'000);
  EXPECT_TRUE(first->find(ids_of(2)));
  EXPECT_EQ(found(*open(), 5), 2);
}

// Whatever byte a crash stops at, whole records stay and new ones can be added.
TEST_F(EmbeddingCacheTest, ATornTailIsIgnored) {
  fill(0, 6);
  const fs::path file = open()->own_file();
  const std::string whole = bytes_of(file);
  int last = 0;
  for (size_t cut = 0; cut < whole.size() + 5; cut += 5) {
    const size_t size = std::min(cut, whole.size());
    write_bytes(file, whole.substr(0, size));
    const auto cache = open();
    const int kept = found(*cache, 6);
    EXPECT_GE(kept, last);
    last = kept;
    cache->add({99}, matrix_of({99}, kWidth));
    EXPECT_TRUE(cache->find({99}));
    const auto again = std::make_unique<EmbeddingCache>(folder_ / "cache", "t5-test", kWidth);
    EXPECT_EQ(found(*again, 6), kept);
    EXPECT_TRUE(again->find({99}));
  }
  EXPECT_EQ(last, 6);
}

TEST_F(EmbeddingCacheTest, DamageIsSeenAndRepaired) {
  fill(0, 6);
  const fs::path file = open()->own_file();
  const std::string whole = bytes_of(file);
  std::mt19937_64 random(11);
  for (int round = 0; round < text_test::mutant_count(300); ++round) {
    write_bytes(file, text_test::mutate(whole, random));
    const auto cache = open();
    found(*cache, 6);  // expects that what is found is right
    for (int n = 0; n < 6; ++n) {
      if (!cache->find(ids_of(n))) cache->add(ids_of(n), matrix_of(ids_of(n), kWidth));
    }
    EXPECT_EQ(found(*cache, 6), 6);
  }
  // One flipped bit in a value costs one record.
  std::string flipped = whole;
  flipped[whole.size() - 9] = static_cast<char>(flipped[whole.size() - 9] ^ 4);
  write_bytes(file, flipped);
  const auto cache = open();
  EXPECT_EQ(found(*cache, 6), 5);
  EXPECT_EQ(cache->counts().damaged, 1u);
}

TEST_F(EmbeddingCacheTest, AFullDiskEndsTheWritingOnly) {
  fill(0, 2);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const auto cache = open();
    const rlimit limit{fs::file_size(cache->own_file()) + 50, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    for (int n = 2; n < 5; ++n) cache->add(ids_of(n), matrix_of(ids_of(n), kWidth));
    const bool reads = cache->find(ids_of(1)).has_value() && cache->own_file().empty();
    ::_exit(reads ? 0 : 1);
  }
  int status = 1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(found(*open(), 5), 2);
}

class CachedEncoderTest : public testing::Test {
 protected:
  CachedEncoderTest() : threads_(at::get_num_threads()) {
    at::set_num_threads(1);
    write_random_t5(folder_ / "t5", text_test::RandomT5());
    text_.text_model = (folder_ / "t5").string();
    text_.vocab_file = (text_test::own_golden() / "tokenizer/own.vocab").string();
    options_.training = true;
  }
  ~CachedEncoderTest() override { at::set_num_threads(threads_); }

  std::unique_ptr<TextEncoder> cached() {
    text_.embedding_cache = (folder_ / "cache").string();
    return make_text_encoder(text_, reader_, options_);
  }

  int threads_;
  TemporaryFolder folder_;
  TextConfig text_;
  ReaderConfig reader_;
  TextEncoderOptions options_;
};

TEST_F(CachedEncoderTest, SameValuesAsWithout) {
  const Captions captions = {"a red dog", "", "the old man and the sea", "a red dog", "e"};
  const PadPolicy pad = PadPolicy::parse("fixed:16");
  const auto plain = make_text_encoder(text_, reader_, options_);
  const auto expected = plain->encode(captions, pad, TextEncoder::Use::kTraining);
  const auto first = cached();
  std::unique_ptr<TextEncoder> second;
  for (int round = 0; round < 3; ++round) {
    if (round == 2) second = cached();
    const auto got = (second ? second : first)->encode(captions, pad, TextEncoder::Use::kTraining);
    EXPECT_TRUE(got.lm_outputs.equal(expected.lm_outputs));
    EXPECT_TRUE(got.lm_mask.equal(expected.lm_mask));
    EXPECT_EQ(got.attended_lengths, expected.attended_lengths);
  }
  const auto& encoder = dynamic_cast<const CachedTextEncoder&>(*first);
  EXPECT_EQ(encoder.encoder().captions_encoded(), 4) << "each caption once";
  EXPECT_EQ(dynamic_cast<const CachedTextEncoder&>(*second).encoder().captions_encoded(), 0);
  // Prompts don't go to the disk.
  const auto added = encoder.cache().counts().added;
  EXPECT_TRUE(first->encode({"a cat"}, pad).lm_outputs.equal(plain->encode({"a cat"}, pad).lm_outputs));
  EXPECT_EQ(encoder.cache().counts().added, added);
}

TEST_F(CachedEncoderTest, OtherWeightsAreOtherEmbeddings) {
  const PadPolicy pad;
  const auto before = cached()->encode({"a red dog"}, pad, TextEncoder::Use::kTraining);
  text_test::RandomT5 other;
  other.seed += 1;
  fs::remove_all(folder_ / "t5");
  write_random_t5(folder_ / "t5", other);
  const auto after = cached()->encode({"a red dog"}, pad, TextEncoder::Use::kTraining);
  EXPECT_FALSE(before.lm_outputs.equal(after.lm_outputs));
  text_.text_precision = TextPrecision::kBf16;
  const auto narrow = cached()->encode({"a red dog"}, pad, TextEncoder::Use::kTraining);
  EXPECT_FALSE(narrow.lm_outputs.equal(after.lm_outputs));
  options_.training = false;
  EXPECT_EQ(dynamic_cast<CachedTextEncoder*>(cached().get()), nullptr) << "sampling needs no cache";
}

}  // namespace
}  // namespace mdm
