#include "mdm/data/captions.h"

#include <gtest/gtest.h>

#include "data/test_data.h"
#include "mdm/core/error.h"
#include "mdm/core/utf8.h"

namespace mdm {
namespace {

using data_test::TemporaryFolder;

TEST(Captions, CountsAndDrops) {
  const TemporaryFolder folder;
  const auto set = data_test::captions_alone(folder, {0, 1, 5, 9, 20});
  const auto tokenizer = data_test::word_tokenizer();
  ReaderConfig reader;
  reader.max_token_length = 10;
  CaptionTable table = CaptionTable::make(*set, tokenizer.get(), reader);
  EXPECT_EQ(table.tokens(0), 1);
  EXPECT_EQ(table.tokens(2), 6);
  EXPECT_EQ(table.tokens(3), 10);
  EXPECT_FALSE(table.kept(4));
  EXPECT_EQ(table.dropped(), 1U);
  reader.max_caption_length = 11;  // "w w w w w" and two spaces
  table = CaptionTable::make(*set, tokenizer.get(), reader);
  EXPECT_TRUE(table.kept(2));
  EXPECT_FALSE(table.kept(3));
  reader.max_caption_length = 10;
  EXPECT_FALSE(CaptionTable::make(*set, tokenizer.get(), reader).kept(2));
}

TEST(Captions, TheLargestBucketIsALimitToo) {
  const TemporaryFolder folder;
  const auto set = data_test::captions_alone(folder, {1, 5, 9});
  ReaderConfig reader;
  reader.token_buckets = {3, 6};
  EXPECT_EQ(CaptionTable::make(*set, data_test::word_tokenizer().get(), reader).dropped(), 1U);
  EXPECT_THROW(CaptionTable::make(*set, nullptr, reader), ConfigError);
  reader.token_buckets = {6, 3};
  EXPECT_THROW(CaptionTable::make(*set, data_test::word_tokenizer().get(), reader), ConfigError);
}

TEST(Captions, WithoutTokenizerAllAreKept) {
  const TemporaryFolder folder;
  const auto set = data_test::captions_alone(folder, {1, 500});
  ReaderConfig reader;
  reader.max_token_length = 3;
  const CaptionTable table = CaptionTable::make(*set, nullptr, reader);
  EXPECT_EQ(table.tokens(1), 0);
  EXPECT_EQ(table.text(*set, 1), set->caption(1));
}

TEST(Captions, TruncatesBetweenCodePoints) {
  const TemporaryFolder folder;
  data_test::write_tar(folder, "one.tar", {{"x", "x"}});
  std::string shard = "tar\tfile\tcaption\n";
  for (const std::string caption : {"short", "w w w w w w w w", "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9",
                                    "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"}) {
    shard += "one.tar\tx\t" + caption + "\n";
  }
  const auto set = Dataset::open(folder.write("s.tsv", shard));
  ReaderConfig reader;
  reader.long_captions = LongCaptions::kTruncate;
  reader.max_token_length = 5;
  reader.max_caption_length = 11;  // 9 bytes
  const CaptionTable table = CaptionTable::make(*set, data_test::word_tokenizer().get(), reader);
  EXPECT_EQ(table.dropped(), 0U);
  EXPECT_EQ(table.truncated(), 3U);
  EXPECT_EQ(table.text(*set, 0), "short");
  EXPECT_EQ(table.tokens(1), 5);
  EXPECT_EQ(table.text(*set, 1).substr(0, 7), "w w w w");
  EXPECT_EQ(table.text(*set, 2), "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9");
  EXPECT_TRUE(is_utf8(table.text(*set, 2)));
  EXPECT_EQ(table.text(*set, 3).size(), 9U);
  reader.compat = ReaderCompat::kMlx;  // the reference drops
  EXPECT_EQ(CaptionTable::make(*set, data_test::word_tokenizer().get(), reader).dropped(), 3U);
}

TEST(Captions, AnyNumberOfThreadsGivesTheSame) {
  const TemporaryFolder folder;
  std::vector<int> counts;
  for (int i = 0; i < 3000; ++i) counts.push_back(i * 7 % 23);
  const auto set = data_test::captions_alone(folder, counts);
  ReaderConfig reader;
  reader.max_token_length = 15;
  const auto tokenizer = data_test::word_tokenizer();
  const CaptionTable one = CaptionTable::make(*set, tokenizer.get(), reader, 1);
  const CaptionTable four = CaptionTable::make(*set, tokenizer.get(), reader, 4);
  for (size_t i = 0; i < counts.size(); ++i) {
    ASSERT_EQ(one.tokens(i), four.tokens(i));
    ASSERT_EQ(one.tokens(i), counts[i] < 15 ? counts[i] + 1 : -1);
  }
}

TEST(Captions, WithoutFurtherThreadsOneCountsThemAll) {
  const TemporaryFolder folder;
  const auto set = data_test::captions_alone(folder, std::vector<int>(1000, 4));
  const data_test::NoNewThreads none;
  const CaptionTable table = CaptionTable::make(*set, data_test::word_tokenizer().get(), {}, 4);
  for (size_t i = 0; i < set->size(); ++i) ASSERT_EQ(table.tokens(i), 5);
}

}  // namespace
}  // namespace mdm
