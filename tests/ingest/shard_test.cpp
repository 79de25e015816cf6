// Shards on the disk: what a kill, a loss of power or another run leaves, and how it goes on.
#include "ingest/shard.h"

#include <nlohmann/json.hpp>

#include "ingest/support.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/data/tar.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using ingest_test::FolderTest;
using ingest_test::jpeg;
using ingest_test::names_in;
using ingest_test::records;

class ShardTest : public FolderTest {
 protected:
  static constexpr uint64_t kRows = 10, kFirst = 30;
  const ShardRows rows_{3, kFirst, kRows};
  ShardFiles files() const { return {folder_, 3}; }

  static UrlRow row(uint64_t number) {
    return {number, "http://a/" + std::to_string(number), "caption\t\"" + std::to_string(number) + "\"\né", ""};
  }
  static Picture picture(uint64_t number) {
    Picture picture;
    picture.bytes = jpeg(static_cast<int>(number));
    picture.width = picture.original_width = 48;
    picture.height = picture.original_height = 32;
    picture.sha256 = picture.file_sha256 = sha256_hex(picture.bytes);
    return picture;
  }
  // Even rows are pictures, odd ones fail; in the order from the last to the first.
  static void work(OpenShard& shard, uint64_t begin, uint64_t end) {
    for (uint64_t i = end; i-- > begin;) {
      if (shard.is_done(kFirst + i)) continue;
      if (i % 2 == 0) {
        shard.add(row(kFirst + i), "http://b/", picture(kFirst + i));
      } else {
        shard.fail_row(row(kFirst + i), {i % 4 == 1 ? "status_404" : "timeout", "why\nnot"});
      }
    }
  }
  void expect_finished() const {
    EXPECT_EQ(names_in(folder_),
              (std::set<std::string>{"00003.tar", "00003.tsv", "00003_failures.tsv", "00003_stats.json"}));
    ScrapeCounts counts;
    ASSERT_TRUE(read_finished(files(), rows_, counts));
    EXPECT_EQ(counts.rows, kRows);
    EXPECT_EQ(counts.pictures, 5u);
    EXPECT_EQ(counts.failures, (std::map<std::string, uint64_t>{{"status_404", 3}, {"timeout", 2}}));
    const TarIndex tar = TarIndex::open(files().tar());
    EXPECT_TRUE(tar.ended());
    EXPECT_EQ(tar.problem(), "");
    EXPECT_EQ(tar.replaced(), 0u);
    EXPECT_EQ(tar.members().size(), 15u);
    const auto listed = records(files().list());
    ASSERT_EQ(listed.size(), 5u);
    const std::string bytes = read_text_file(files().tar());
    for (size_t i = 0; i < listed.size(); ++i) {
      const uint64_t number = kFirst + 2 * i;
      EXPECT_EQ(listed[i][0], "00003.tar");
      EXPECT_EQ(listed[i][1], key_of(number) + ".jpg");
      EXPECT_EQ(listed[i][2], row(number).caption);
      const TarMember* member = tar.find(listed[i][1]);
      ASSERT_NE(member, nullptr);
      EXPECT_EQ(bytes.substr(member->offset, member->size), jpeg(static_cast<int>(number)));
      const TarMember* caption = tar.find(key_of(number) + ".txt");
      ASSERT_NE(caption, nullptr);
      EXPECT_EQ(bytes.substr(caption->offset, caption->size), row(number).caption);
    }
    const auto failed = records(files().failures());
    ASSERT_EQ(failed.size(), 5u);
    for (size_t i = 0; i < failed.size(); ++i) {
      EXPECT_EQ(failed[i][0], key_of(kFirst + 2 * i + 1));
      EXPECT_EQ(failed[i][2], row(kFirst + 2 * i + 1).caption);
    }
  }
};

TEST_F(ShardTest, IsWrittenAtOnce) {
  OpenShard shard(folder_, rows_);
  work(shard, 0, kRows);
  EXPECT_EQ(shard.left(), 0u);
  shard.finish();
  expect_finished();
}

TEST_F(ShardTest, GoesOnAfterAnyCut) {
  {
    OpenShard shard(folder_, rows_);
    work(shard, 0, kRows);
  }
  const std::string part = read_text_file(files().part()), journal = read_text_file(files().journal());
  // Every place where a write may have ended, more or less.
  for (size_t cut = 0; cut <= part.size(); cut += 97) {
    write_file(files().part(), part.substr(0, cut));
    write_file(files().journal(), journal.substr(0, cut * journal.size() / part.size()));
    OpenShard shard(folder_, rows_);
    EXPECT_EQ(shard.left() + shard.counts().pictures + shard.counts().all_failures(), kRows);
    EXPECT_EQ(shard.digests().size(), shard.counts().pictures);
    work(shard, 0, kRows);
    ASSERT_EQ(shard.left(), 0u);
    shard.finish();
    expect_finished();
    fs::remove_all(folder_);
    fs::create_directory(folder_);
  }
}

TEST_F(ShardTest, HolesInThePartAreFound) {  // what a loss of power leaves
  {
    OpenShard shard(folder_, rows_);
    work(shard, 0, kRows);
  }
  std::string part = read_text_file(files().part());
  const TarIndex index = TarIndex::open(files().part());
  part.replace(index.members()[6].offset + 100, 50, 50, '\0');  // in the third picture
  write_file(files().part(), part);
  OpenShard shard(folder_, rows_);
  EXPECT_EQ(shard.counts().pictures, 2u);
  work(shard, 0, kRows);
  shard.finish();
  expect_finished();
}

TEST_F(ShardTest, AnyStepOfFinishingMayBeTheLast) {
  {
    OpenShard shard(folder_, rows_);
    work(shard, 0, kRows);
    shard.finish();
  }
  // All but the stats.
  fs::remove(files().stats());
  ScrapeCounts counts;
  EXPECT_FALSE(read_finished(files(), rows_, counts));
  // The journal is removed last; without the stats it is there.
  std::string journal;
  for (const auto& fields : records(files().failures())) {
    journal += nlohmann::json{{"row", std::stoull(fields[0])},
                              {"url", fields[1]},
                              {"caption", fields[2]},
                              {"cause", fields[3]},
                              {"detail", fields[4]}}
                   .dump() +
               '\n';
  }
  write_file(files().journal(), journal);
  OpenShard shard(folder_, rows_);
  EXPECT_EQ(shard.left(), 0u);
  shard.finish();
  expect_finished();
}

TEST_F(ShardTest, AJournalBesideAFinishedShardIsALeftover) {
  {
    OpenShard shard(folder_, rows_);
    work(shard, 0, kRows);
    shard.finish();
  }
  write_file(files().journal(), "");  // killed before it was removed
  drop_leftovers(files());
  expect_finished();
}

TEST_F(ShardTest, ForeignContentIsNoPicture) {
  {
    TarWriter tar(files().part());
    tar.add("../../evil.jpg", "x");
    tar.add("../../evil.txt", "x");
    tar.add("../../evil.json", "{}");
    tar.finish();
  }
  write_file(files().journal(), "{\"row\":99999}\n{\"row\":-1}\nnonsense\n");
  OpenShard shard(folder_, rows_);
  EXPECT_EQ(shard.left(), kRows);
  work(shard, 0, kRows);
  shard.finish();
  expect_finished();
}

TEST_F(ShardTest, ReopensForWhatMayBeRightNow) {
  {
    OpenShard shard(folder_, rows_);
    work(shard, 0, kRows);
    shard.finish();
  }
  reopen(files(), rows_, [](const std::string& cause) { return cause == "timeout"; });
  EXPECT_EQ(names_in(folder_), (std::set<std::string>{".00003.journal", ".00003.tar.part"}));
  OpenShard shard(folder_, rows_);
  EXPECT_EQ(shard.left(), 2u);
  EXPECT_FALSE(shard.is_done(kFirst + 3));
  shard.add(row(kFirst + 3), "", picture(kFirst + 3));
  shard.fail_row(row(kFirst + 7), {"timeout", "again"});
  shard.finish();
  ScrapeCounts counts;
  ASSERT_TRUE(read_finished(files(), rows_, counts));
  EXPECT_EQ(counts.pictures, 6u);
  EXPECT_EQ(counts.failures, (std::map<std::string, uint64_t>{{"status_404", 3}, {"timeout", 1}}));
  EXPECT_EQ(records(files().list())[2][1], key_of(kFirst + 3) + ".jpg");  // in its place by key
}

TEST_F(ShardTest, StatsOfOtherRowsDoNotCount) {
  {
    OpenShard shard(folder_, rows_);
    work(shard, 0, kRows);
    shard.finish();
  }
  ScrapeCounts counts;
  EXPECT_FALSE(read_finished(files(), {3, kFirst, kRows + 1}, counts));
  write_file(files().stats(), "{");
  EXPECT_FALSE(read_finished(files(), rows_, counts));
}

}  // namespace
}  // namespace mdm::ingest
