// The text room's files as training meets them: a cache of embeddings that comes to a limit or lies where there are
// no locks, and labels that are looked up before they are used.
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "data/test_data.h"
#include "mdm/core/log.h"
#include "mdm/text/embedding_cache.h"
#include "mdm/text/other_encoders.h"
#include "support/file_locks.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kCacheWidth = 4;

class CacheLimits : public testing::Test {
 protected:
  EmbeddingCache open(const EmbeddingCacheLimits& limits = {}) const {
    return EmbeddingCache(folder_.folder() / "cache", "t5-x", kCacheWidth, limits);
  }
  static void add(EmbeddingCache& cache, int first, int last) {
    for (int n = first; n < last; ++n) cache.add({n}, at::full({1, kCacheWidth}, n, at::kFloat));
  }
  static int found(EmbeddingCache& cache, int count) {
    int sum = 0;
    for (int n = 0; n < count; ++n) sum += cache.find({n}).has_value() ? 1 : 0;
    return sum;
  }
  // How many warnings `work` logs.
  template <typename Work>
  static int64_t warnings(const Work& work) {
    set_log_level(LogLevel::kWarning);
    testing::internal::CaptureStderr();
    work();
    const std::string log = testing::internal::GetCapturedStderr();
    set_log_level(LogLevel::kInfo);
    return std::count(log.begin(), log.end(), '\n');
  }
  int64_t files() const { return std::distance(fs::directory_iterator(folder_.folder() / "cache"), {}); }

  data_test::TemporaryFolder folder_;
};

TEST_F(CacheLimits, AFullCacheIsNotWrittenTo) {
  EmbeddingCacheLimits limits;
  limits.records = 3;
  auto cache = open(limits);
  const fs::path file = cache.own_file();
  add(cache, 0, 3);
  const auto size = fs::file_size(file);
  EXPECT_EQ(warnings([&] { add(cache, 3, 10); }), 1);
  EXPECT_EQ(fs::file_size(file), size);
  EXPECT_EQ(cache.counts().added, 3U);
  EXPECT_EQ(found(cache, 10), 3);
  auto later = open(limits);
  add(later, 3, 10);
  EXPECT_EQ(later.counts().added, 0U);
}

TEST_F(CacheLimits, TheDiskIsNotFilledToTheEnd) {
  EmbeddingCacheLimits limits;
  limits.free_bytes = UINT64_MAX;
  auto cache = open(limits);
  EXPECT_EQ(warnings([&] { add(cache, 0, 5); }), 1);
  EXPECT_EQ(cache.counts().added, 0U);
  EXPECT_TRUE(cache.own_file().empty());
  limits.free_bytes = 1;
  auto other = open(limits);
  add(other, 0, 5);
  EXPECT_EQ(other.counts().added, 5U);
}

// Without locks a file is written by the process that made it, and by no other.
TEST_F(CacheLimits, FileSystemsWithoutLocks) {
  for (const int code : {ENOSYS, ENOTSUP, ENOLCK}) {
    fs::remove_all(folder_.folder() / "cache");
    test_support::lock_error = code;
    fs::path first;
    EXPECT_EQ(warnings([&] {
                auto cache = open();
                first = cache.own_file();
                add(cache, 0, 3);
              }),
              1);
    EXPECT_FALSE(first.empty());
    EXPECT_EQ(warnings([&] {
                auto cache = open();
                EXPECT_FALSE(cache.own_file().empty());
                EXPECT_NE(cache.own_file(), first);
                EXPECT_EQ(found(cache, 3), 3);
              }),
              1);
    test_support::lock_error = 0;
    EXPECT_EQ(files(), 2);
  }
}

TEST_F(CacheLimits, AFaultIsNotTakenForALockedFile) {
  test_support::lock_error = EIO;
  EXPECT_EQ(warnings([&] { EXPECT_TRUE(open().own_file().empty()); }), 1);
  test_support::lock_error = 0;
  EXPECT_EQ(files(), 1);
}

TEST(ClassLabels, AreKnownOrNot) {
  const data_test::TemporaryFolder folder;
  const ClassLabelEncoder labels(folder.write("classes", "<unk>\ncat\t1\nred dog\n"), -1, at::kCPU);
  for (const char* known : {"cat", " red dog ", "", "  "}) EXPECT_TRUE(labels.knows(known)) << known;
  for (const char* unknown : {"dog", "Cat", "<unk>", "cat\t1"}) EXPECT_FALSE(labels.knows(unknown)) << unknown;
}

}  // namespace
}  // namespace mdm
