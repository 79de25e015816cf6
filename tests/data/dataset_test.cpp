#include "mdm/data/dataset.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "data/test_data.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

using data_test::TemporaryFolder;

class DatasetTest : public testing::Test {
 protected:
  void SetUp() override { set_log_level(LogLevel::kError); }
  void TearDown() override { set_log_level(LogLevel::kInfo); }
  TemporaryFolder folder_;
};

std::string text_of(const Dataset& dataset, size_t sample) {
  std::vector<uint8_t> bytes;
  dataset.read_image(sample, bytes);
  return std::string(bytes.begin(), bytes.end());
}

std::string open_error(const std::string& list, const DatasetOptions& options = {}) {
  try {
    Dataset::open(list, options);
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

TEST_F(DatasetTest, IndexShardsAndArchives) {
  data_test::write_tar(folder_, "one.tar", {{"a", "A"}, {"b", "B"}});
  data_test::write_tar(folder_, "two.tar", {{"a", "AA"}});
  folder_.write("s1.tsv", "tar\tfile\tcaption\none.tar\tb\tsecond\none.tar\ta\tfirst\n");
  folder_.write("s2.tsv", "caption\tscore\tfile\ttar\n\"t\tab\"\t 0.25\ta\ttwo.tar\n\"\"\tx\ta\tone.tar\n");
  DatasetOptions options;
  options.numbers = {"score", "other"};
  const auto set = Dataset::open(folder_.write("index.tsv", "filename\ns1.tsv\ns2.tsv\n"), options);
  ASSERT_EQ(set->size(), 4U);
  EXPECT_EQ(set->caption(0), "second");
  EXPECT_EQ(set->caption(1), "first");
  EXPECT_EQ(set->caption(2), "t\tab");
  EXPECT_EQ(set->caption(3), "");
  EXPECT_EQ(text_of(*set, 0) + text_of(*set, 1) + text_of(*set, 2) + text_of(*set, 3), "BAAAA");
  EXPECT_EQ(set->archive(2), "two.tar");
  EXPECT_EQ(set->where(2), "two.tar: a");
  EXPECT_TRUE(set->has_number("score"));
  EXPECT_FALSE(set->has_number("other"));
  EXPECT_EQ(set->number("score", 2), 0.25f);
  EXPECT_TRUE(std::isnan(set->number("score", 0)));
  EXPECT_TRUE(std::isnan(set->number("score", 3)));
  EXPECT_TRUE(set->bad_rows().empty());
  // A shard by itself.
  EXPECT_EQ(Dataset::open(folder_.path("s2.tsv"))->size(), 2U);
}

TEST_F(DatasetTest, BadRowsAreCountedByKind) {
  data_test::write_tar(folder_, "one.tar", {{"a", "A"}});
  const auto set = Dataset::open(folder_.write(
      "s.tsv",
      "tar\tfile\tcaption\none.tar\ta\tx\none.tar\tmissing\tx\none.tar\ta\n\none.tar\ta\ty\"z\none.tar\ta\tend\n"));
  EXPECT_EQ(set->size(), 2U);
  EXPECT_EQ(set->bad_rows(), (std::map<std::string, uint64_t>{{"line", 3}, {"member", 1}}));
}

TEST_F(DatasetTest, TooManyBadRowsEndTheRun) {
  data_test::write_tar(folder_, "one.tar", {{"a", "A"}});
  const auto shard = [](int good, int bad) {
    std::string text = "tar\tfile\tcaption\n";
    for (int i = 0; i < good; ++i) text += "one.tar\ta\tx\n";
    for (int i = 0; i < bad; ++i) text += "one.tar\tmissing\tx\n";
    return text;
  };
  EXPECT_EQ(open_error(folder_.write("s.tsv", shard(199, 2))), "");
  EXPECT_NE(open_error(folder_.write("s.tsv", shard(198, 3))).find("3 of 201 rows are bad (member 3)"),
            std::string::npos);
  EXPECT_EQ(open_error(folder_.write("s.tsv", shard(90, 9))), "");  // too few to judge
}

TEST_F(DatasetTest, ReferenceModeIsStrict) {
  data_test::write_tar(folder_, "one.tar", {{"a", "A"}});
  DatasetOptions mlx;
  mlx.mlx = true;
  EXPECT_NE(open_error(folder_.write("s.tsv", "tar\tfile\tcaption\none.tar\ta\n"), mlx).find("s.tsv:2"),
            std::string::npos);
  const auto set =
      Dataset::open(folder_.write("s.tsv", "tar\tfile\tcaption\none.tar\tmissing\tx\none.tar\ta\ty\n"), mlx);
  ASSERT_EQ(set->size(), 2U);
  EXPECT_THROW(text_of(*set, 0), DataError);
  EXPECT_EQ(text_of(*set, 1), "A");
  const std::string whole = data_test::bytes_of(folder_.path("one.tar"));
  folder_.write("one.tar", whole.substr(0, 1024));  // without the blocks of zeros
  EXPECT_NE(open_error(folder_.path("s.tsv"), mlx).find("no end mark"), std::string::npos);
  EXPECT_EQ(Dataset::open(folder_.write("t.tsv", "tar\tfile\tcaption\none.tar\ta\ty\n"))->size(), 1U);
}

TEST_F(DatasetTest, WhatIsMissingIsAnError) {
  data_test::write_tar(folder_, "empty.tar", {});
  EXPECT_NE(open_error(folder_.path("none.tsv")).find("none.tsv"), std::string::npos);
  EXPECT_NE(open_error(folder_.write("a.tsv", "filename\nnone.tsv\n")).find("none.tsv"), std::string::npos);
  EXPECT_NE(open_error(folder_.write("b.tsv", "filename\n")).find("names no shard"), std::string::npos);
  EXPECT_NE(open_error(folder_.write("c.tsv", "tar\tfile\tcaption\nnone.tar\ta\tx\n")).find("none.tar"),
            std::string::npos);
  EXPECT_NE(open_error(folder_.write("d.tsv", "tar\tfile\tcaption\nempty.tar\ta\tx\n")).find("holds no file"),
            std::string::npos);
  EXPECT_NE(open_error(folder_.write("e.tsv", "tar\tfile\tcaption\n")).find("no sample"), std::string::npos);
  EXPECT_NE(open_error(folder_.write("f.tsv", "what\nx\n")).find("no column"), std::string::npos);
  EXPECT_NE(open_error(folder_.write("g.tar", "no archive")).find("g.tar"), std::string::npos);
  EXPECT_NE(open_error(folder_.folder().string() + "/empty_folder").find("empty_folder"), std::string::npos);
}

TEST_F(DatasetTest, CutArchiveGivesWhatLiesBeforeTheCut) {
  data_test::write_tar(folder_, "one.tar", {{"a", "A"}, {"b", std::string(2000, 'b')}});
  const std::string whole = data_test::bytes_of(folder_.path("one.tar"));
  folder_.write("one.tar", whole.substr(0, 2000));
  const auto set = Dataset::open(folder_.write("s.tsv", "tar\tfile\tcaption\none.tar\ta\tx\none.tar\tb\tx\n"));
  EXPECT_EQ(set->size(), 1U);
  EXPECT_EQ(set->bad_rows().at("member"), 1U);
}

TEST_F(DatasetTest, ArchiveThatShrinksIsAnErrorAndNotASignal) {
  data_test::write_tar(folder_, "one.tar", {{"a", std::string(100000, 'a')}});
  const auto set = Dataset::open(folder_.write("s.tsv", "tar\tfile\tcaption\none.tar\ta\tx\n"));
  std::filesystem::resize_file(folder_.path("one.tar"), 4096);
  EXPECT_THROW(text_of(*set, 0), DataError);
}

TEST_F(DatasetTest, FewOpenFiles) {
  std::string shard = "tar\tfile\tcaption\n";
  for (int i = 0; i < 20; ++i) {
    const std::string name = std::to_string(i) + ".tar";
    data_test::write_tar(folder_, name, {{"a", std::to_string(i)}});
    shard += name + "\ta\tx\n";
  }
  DatasetOptions options;
  options.max_open_files = 3;
  const auto set = Dataset::open(folder_.write("s.tsv", shard), options);
  for (size_t i = 0; i < 60; ++i) EXPECT_EQ(text_of(*set, i * 7 % 20), std::to_string(i * 7 % 20));
  const auto open_files = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  EXPECT_LT(open_files, 40);
  std::filesystem::remove(folder_.path("5.tar"));  // not among the last three
  EXPECT_THROW(text_of(*set, 5), DataError);
}

// More files than the system allows are not held open, whatever is asked for.
TEST_F(DatasetTest, OpenFilesStayBelowTheSystemsLimit) {
  std::string shard = "tar\tfile\tcaption\n";
  const auto open_files = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
  const rlim_t few = static_cast<rlim_t>(2 * open_files() + 40);
  for (rlim_t i = 0; i < few; ++i) {
    const std::string name = std::to_string(i) + ".tar";
    data_test::write_tar(folder_, name, {{"a", "A"}});
    shard += name + "\ta\tx\n";
  }
  folder_.write("s.tsv", shard);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit lower{few, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &lower), 0);
  DatasetOptions options;
  options.max_open_files = 100000;
  const auto set = Dataset::open(folder_.path("s.tsv"), options);
  for (size_t i = 0; i < set->size(); ++i) EXPECT_NO_THROW(text_of(*set, i)) << i;
  ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(DatasetTest, WithoutFurtherThreadsOneIndexesAll) {
  std::string shard = "tar\tfile\tcaption\n";
  for (int i = 0; i < 10; ++i) {
    data_test::write_tar(folder_, std::to_string(i) + ".tar", {{"a", "A"}});
    shard += std::to_string(i) + ".tar\ta\tx\n";
  }
  DatasetOptions options;
  options.threads = 4;
  const data_test::NoNewThreads none;
  EXPECT_EQ(Dataset::open(folder_.write("s.tsv", shard), options)->size(), 10U);
}

TEST_F(DatasetTest, FilesThatAreTooLarge) {
  data_test::write_sparse_tar(folder_, "big.tar", "a.jpg", (uint64_t{256} << 20) + 1);
  data_test::write_sparse_tar(folder_, "most.tar", "a.jpg", uint64_t{256} << 20);
  const std::string list = folder_.write("s.tsv", "tar\tfile\tcaption\nbig.tar\ta.jpg\tx\nmost.tar\ta.jpg\ty\n");
  const auto set = Dataset::open(list);
  ASSERT_EQ(set->size(), 1U);
  EXPECT_EQ(set->caption(0), "y");
  EXPECT_EQ(set->bad_rows().at("member"), 1U);
  EXPECT_NE(open_error(folder_.path("big.tar")).find("bad rows: member 1"), std::string::npos);
  DatasetOptions mlx;
  mlx.mlx = true;
  std::vector<uint8_t> bytes;
  try {
    Dataset::open(list, mlx)->read_image(0, bytes);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("larger than the 268435456 bytes"), std::string::npos) << error.what();
  }
  EXPECT_LT(bytes.capacity(), 1000U);
}

TEST_F(DatasetTest, WebdatasetsHaveNoEmbeddings) {
  data_test::write_tar(folder_, "w.tar", {{"1.jpg", "J"}, {"1.txt", "a cat"}});
  DatasetOptions options;
  options.embeddings = true;
  for (const std::string& list :
       {folder_.path("w.tar"), folder_.folder().string(), folder_.write("index.tsv", "filename\nw.tar\n")}) {
    EXPECT_NE(open_error(list, options).find("no columns text_tar and text_file"), std::string::npos) << list;
  }
}

TEST_F(DatasetTest, Webdataset) {
  const data_test::Members members = {{"0001.jpg", "J"},
                                      {"0001.txt", "a cat\n"},
                                      {"d/2.x.PNG", "dotted"},
                                      {"d/2.png", "P"},
                                      {"d/2.json", R"({"caption": "d\u00f6g", "score": 0.5, "width": "64"})"},
                                      {"3.webp", "W"},
                                      {"3.txt", "both"},
                                      {"3.json", R"({"caption": "not this", "score": "2"})"},
                                      {"no_caption.jpg", "x"},
                                      {"no_image.txt", "x"},
                                      {"bad.jpg", "x"},
                                      {"bad.json", "[1"},
                                      {"note", "x"},
                                      {".txt", "x"}};
  data_test::write_tar(folder_, "w.tar", members);
  DatasetOptions options;
  options.numbers = {"score"};
  for (const std::string& list :
       {folder_.path("w.tar"), folder_.folder().string(), folder_.write("index.tsv", "filename\nw.tar\n")}) {
    const auto set = Dataset::open(list, options);
    ASSERT_EQ(set->size(), 3U) << list;
    EXPECT_EQ(set->caption(0), "a cat");
    EXPECT_EQ(set->caption(1), "d\xC3\xB6g");
    EXPECT_EQ(set->caption(2), "both");
    EXPECT_EQ(text_of(*set, 0) + text_of(*set, 1) + text_of(*set, 2), "JPW");
    EXPECT_TRUE(std::isnan(set->number("score", 0)));
    EXPECT_EQ(set->number("score", 1), 0.5f);
    EXPECT_EQ(set->number("score", 2), 2.0f);
    // no_caption, bad, and d/2.x (an image whose ending is "x.PNG" is none); no_image and ".txt".
    EXPECT_EQ(set->bad_rows(), (std::map<std::string, uint64_t>{{"caption", 2}, {"member", 2}}));
  }
}

TEST_F(DatasetTest, Embeddings) {
  std::string npy("\x93NUMPY\x01\0", 8);
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
  npy += static_cast<char>(header.size());
  npy += '\0' + header + std::string("\0\0\x80\x3F\0\0\0\x40", 8);
  data_test::write_tar(folder_, "i.tar", {{"a", "A"}});
  data_test::write_tar(folder_, "t.tar", {{"e.npy", npy}, {"bad.npy", "x"}});
  const std::string list = folder_.write("s.tsv",
                                         "tar\tfile\tcaption\ttext_tar\ttext_file\ni.tar\ta\tx\tt.tar\te.npy\n"
                                         "i.tar\ta\tx\tt.tar\tmissing\ni.tar\ta\tx\tt.tar\tbad.npy\n");
  DatasetOptions options;
  options.embeddings = true;
  const auto set = Dataset::open(list, options);
  ASSERT_EQ(set->size(), 2U);
  EXPECT_EQ(set->bad_rows().at("member"), 1U);
  EXPECT_EQ(set->largest_embedding_bytes(), npy.size());
  EXPECT_EQ(set->read_embedding(0).data_ptr<float>()[1], 2.0f);
  EXPECT_THROW(set->read_embedding(1), DataError);
  EXPECT_EQ(Dataset::open(list)->size(), 3U);
  EXPECT_EQ(Dataset::open(list)->largest_embedding_bytes(), 0U);
  EXPECT_THROW(Dataset::open(list)->read_embedding(0), DataError);
}

TEST_F(DatasetTest, FileUrlsArePaths) {
  const std::string set = data_test::small_set(folder_, 3);
  const std::string list = folder_.write("by_url.tsv", "tar\tfile\tcaption\nfile://" + folder_.path("images.tar") +
                                                           "\t" + std::string(Dataset::open(set)->file(0)) + "\tx\n");
  EXPECT_EQ(Dataset::open(list)->size(), 1u);
  EXPECT_EQ(Dataset::open("file://" + list)->size(), 1u);
  EXPECT_THROW(Dataset::open("file://other.host/a.tsv"), DataError);
}

TEST_F(DatasetTest, UrlsGoThroughTheCaller) {
  data_test::write_tar(folder_, "one.tar", {{"a", "A"}});
  folder_.write("shard.tsv", "tar\tfile\tcaption\none.tar\ta\tx\nhttps://other/one.tar\ta\ty\n");
  const std::string index = folder_.write("index.tsv", "filename\nhttps://host/d/shard.tsv?key=1\n");
  EXPECT_NE(open_error(index).find("can't read from the network"), std::string::npos);
  std::vector<std::string> asked;
  DatasetOptions options;
  options.resolve_url = [&](const std::string& url) {
    asked.push_back(url);
    return folder_.folder() / (url.find("shard") != std::string::npos ? "shard.tsv" : "one.tar");
  };
  const auto set = Dataset::open(index, options);
  EXPECT_EQ(set->size(), 2U);
  // A relative name belongs to the list's own URL.
  EXPECT_EQ(asked, (std::vector<std::string>{"https://host/d/shard.tsv?key=1", "https://host/d/one.tar",
                                             "https://other/one.tar"}));
  for (const char* url : {"HTTPS://host/one.tar", "S3://bucket/one.tar"}) {
    const std::string list = folder_.write("other.tsv", std::string("tar\tfile\tcaption\n") + url + "\ta\tx\n");
    asked.clear();
    EXPECT_EQ(Dataset::open(list, options)->size(), 1U);
    EXPECT_EQ(asked, std::vector<std::string>{url});
  }
}

}  // namespace
}  // namespace mdm
