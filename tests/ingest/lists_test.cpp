// The division into training and validation.
#include "ingest/lists.h"

#include "ingest/support.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using ingest_test::FolderTest;
using ingest_test::records;

class ListsTest : public FolderTest {
 protected:
  // Shards whose lists name so many pictures; their tars are not looked at.
  void make(const std::vector<uint64_t>& pictures) {
    uint64_t key = 0;
    for (size_t shard = 0; shard < pictures.size(); ++shard) {
      const ShardFiles files(folder_, shard);
      std::string text = "tar\tfile\tcaption\twidth\theight\tsha256\n";
      for (uint64_t i = 0; i < pictures[shard]; ++i)
        text += files.name() + ".tar\t" + key_of(key++) + ".jpg\t\"a \"\"b\"\"\"\t1\t1\tx\n";
      write_file(files.list(), text);
      write_file(files.stats(), "{}");
    }
  }
  std::vector<std::string> keys(const std::string& index) const {
    std::vector<std::string> all;
    if (!fs::exists(folder_ / index)) return all;
    for (const auto& shard : records(folder_ / index)) {
      const auto rows = records(folder_ / shard[0]);
      EXPECT_FALSE(rows.empty()) << index << " names an empty list";
      for (const auto& row : rows) all.push_back(row[1]);
    }
    return all;
  }
};

TEST_F(ListsTest, EveryPictureIsOnOneSideAndTheRightWayRound) {
  make({1000, 0, 2000, 3000});
  const WrittenLists lists = write_lists(folder_, {0.2, 7});
  EXPECT_EQ(lists.train, folder_ / "train.tsv");
  const auto train = keys("train.tsv"), validation = keys("validation.tsv");
  EXPECT_NEAR(static_cast<double>(validation.size()), 1200, 100);  // binomial: three standard deviations are 93
  std::set<std::string> all(train.begin(), train.end());
  all.insert(validation.begin(), validation.end());
  EXPECT_EQ(all.size(), 6000u);
  EXPECT_EQ(train.size() + validation.size(), 6000u);
  EXPECT_EQ(keys("index.tsv").size(), 6000u);
  EXPECT_EQ(records(folder_ / "index.tsv").size(), 3u);
}

TEST_F(ListsTest, ThePlaceOfAPictureDependsOnItsKeyAlone) {
  make({500, 500});
  write_lists(folder_, {0.2, 7});
  const auto before = keys("validation.tsv");
  make({500, 500, 500});
  write_lists(folder_, {0.2, 7});
  auto after = keys("validation.tsv");
  ASSERT_GT(after.size(), before.size());
  after.resize(before.size());
  EXPECT_EQ(after, before);
  write_lists(folder_, {0.2, 8});  // another seed divides all anew
  EXPECT_NE(keys("validation.tsv"), before);
}

TEST_F(ListsTest, NeitherSideIsEmptyForAnyNumberOfShards) {
  for (const double share : {0.2, 0.0001, 0.9999}) {
    std::vector<uint64_t> shards;
    for (int count = 1; count <= 10; ++count) {
      shards.push_back(2);
      make(shards);
      const WrittenLists lists = write_lists(folder_, {share, 4});
      EXPECT_FALSE(keys("train.tsv").empty()) << share << ' ' << count;
      EXPECT_FALSE(keys("validation.tsv").empty()) << share << ' ' << count;
      EXPECT_EQ(keys("train.tsv").size() + keys("validation.tsv").size(), 2u * static_cast<size_t>(count));
      EXPECT_FALSE(lists.validation.empty());
    }
    fs::remove_all(folder_);
    fs::create_directory(folder_);
  }
}

TEST_F(ListsTest, AMovedPictureGoesBackWhenItIsNotNeededAnyMore) {
  make({3});
  write_lists(folder_, {0.01, 1});
  ASSERT_EQ(keys("validation.tsv").size(), 1u);
  make({3, 2000});
  write_lists(folder_, {0.01, 1});
  const auto grown = keys("validation.tsv");
  fs::remove_all(folder_);
  fs::create_directory(folder_);
  make({3, 2000});
  write_lists(folder_, {0.01, 1});
  EXPECT_EQ(keys("validation.tsv"), grown);
}

TEST_F(ListsTest, OneOrNoPictureAndNoShare) {
  make({1});
  WrittenLists lists = write_lists(folder_, {0.5, 1});
  EXPECT_EQ(keys("train.tsv").size() + keys("validation.tsv").size(), 1u);
  make({10});
  lists = write_lists(folder_, {0, 1});
  EXPECT_EQ(keys("train.tsv").size(), 10u);
  EXPECT_TRUE(lists.validation.empty());
  EXPECT_FALSE(fs::exists(folder_ / "validation.tsv"));
  make({0});
  lists = write_lists(folder_, {0.5, 1});
  EXPECT_TRUE(lists.train.empty());
  EXPECT_FALSE(fs::exists(folder_ / "index.tsv"));
}

}  // namespace
}  // namespace mdm::ingest
