// What the loader does with samples that are unusable, or larger than one would like.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "data/test_data.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/data/loader.h"

namespace mdm {
namespace {

using data_test::npy_row;
using data_test::TemporaryFolder;
using Holes = std::map<std::string, uint64_t>;

class LoaderFaults : public testing::Test {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::kOff);
    options_.reader.image_size = options_.reader.smaller_side_size = 16;
    options_.reader.max_bad_fraction = 1;
    options_.reader.caption_dropout = 0;
    options_.reader.shuffle = false;
    options_.reader.num_readers = 1;
  }
  void TearDown() override { set_log_level(LogLevel::kInfo); }

  TrainingData data(const std::string& list, int64_t rows) const {
    DatasetOptions options;
    options.embeddings = options_.embeddings;
    return open_training_data(list, options_.reader, nullptr, 0, rows, options);
  }

  // A list of pictures with the embeddings of these files, "ARCHIVE\tFILE".
  std::string with_embeddings(const std::vector<std::string>& places) {
    options_.embeddings = true;
    data_test::write_tar(folder_, "i.tar", {{"a", data_test::picture(1)}});
    std::string list = "tar\tfile\tcaption\ttext_tar\ttext_file\n";
    for (const auto& place : places) list += "i.tar\ta\tx\t" + place + "\n";
    return folder_.write("s.tsv", list);
  }

  TemporaryFolder folder_;
  LoaderOptions options_;
};

TEST_F(LoaderFaults, UnknownLabelsAreHoles) {
  const TrainingData set = data(data_test::small_set(folder_, 6), 6);
  options_.knows_caption = [](std::string_view caption) { return caption != "caption 2" && caption != "caption 4"; };
  set_log_level(LogLevel::kWarning);
  testing::internal::CaptureStderr();
  Loader loader(set, options_);
  const Batch batch = loader.next();
  const std::string log = testing::internal::GetCapturedStderr();
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(batch.weights.data_ptr<float>()[i], i == 2 || i == 4 ? 0 : 1);
    EXPECT_EQ(batch.captions[i].empty(), i == 2 || i == 4);
  }
  EXPECT_EQ(loader.counters().holes, (Holes{{"label", 2}}));
  EXPECT_NE(log.find("images.tar: 2.png: the caption \"caption 2\" is not a known label"), std::string::npos) << log;
  // What is dropped is not asked about.
  options_.reader.caption_dropout = 1;
  Loader dropping(set, options_);
  EXPECT_EQ(dropping.next().weights.sum().item<float>(), 6);
}

TEST_F(LoaderFaults, EmbeddingsThatDontFitAreHoles) {
  data_test::write_tar(folder_, "t.tar",
                       {{"good", npy_row({1, 2})},
                        {"wide", npy_row({1, 2, 3})},
                        {"nan", npy_row({NAN, 1})},
                        {"inf", npy_row({1, INFINITY})}});
  const TrainingData set = data(with_embeddings({"t.tar\tgood", "t.tar\twide", "t.tar\tnan", "t.tar\tinf"}), 4);
  for (const int64_t width : {2, -1}) {
    options_.embedding_width = width;
    set_log_level(LogLevel::kWarning);
    testing::internal::CaptureStderr();
    Loader loader(set, options_);
    const Batch batch = loader.next();
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_EQ(batch.weights.data_ptr<float>()[0], 1);
    EXPECT_EQ(batch.weights.data_ptr<float>()[1], width == 2 ? 0 : 1);
    EXPECT_EQ(loader.counters().holes, (Holes{{"embedding", width == 2 ? 3 : 2}}));
    EXPECT_EQ(log.find("embedding of i.tar: a: is 3 wide, not 2") != std::string::npos, width == 2) << log;
    EXPECT_NE(log.find("embedding of i.tar: a: holds values that are not finite"), std::string::npos) << log;
    EXPECT_FALSE(batch.embeddings[2].defined());
  }
}

// 256 MiB are read ahead, and the largest embedding counts for every row.
TEST_F(LoaderFaults, EmbeddingsCountInWhatIsReadAhead) {
  data_test::write_tar(folder_, "t.tar", {{"small", npy_row({1, 2})}});
  data_test::write_sparse_tar(folder_, "big.tar", "e", uint64_t{200} << 20);
  std::vector<std::string> places(30, "t.tar\tsmall");
  places.back() = "big.tar\te";
  const TrainingData set = data(with_embeddings(places), 1);
  std::atomic<int> begun{0};
  options_.reader.reader_buffer_size = 20;
  options_.knows_caption = [&](std::string_view) { return ++begun > 0; };
  const Loader loader(set, options_);
  for (int i = 0; i < 1000 && begun < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  EXPECT_EQ(begun, 2);
}

size_t resident_bytes() {
  size_t whole = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> whole >> resident;
  return resident * 4096;
}

TEST_F(LoaderFaults, ALargeFileDoesNotStayInMemory) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer keeps what is freed";
#endif
  data_test::write_sparse_tar(folder_, "big.tar", "a", uint64_t{120} << 20);
  data_test::small_set(folder_, 30);
  std::string list = "tar\tfile\tcaption\nbig.tar\ta\tbig\n";
  for (int i = 0; i < 30; ++i) list += concat("images.tar\t", i, ".png\tx\n");
  const TrainingData set = data(folder_.write("s.tsv", list), 1);
  options_.reader.reader_buffer_size = 2;
  const size_t before = resident_bytes();
  Loader loader(set, options_);
  for (int i = 0; i < 3; ++i) loader.next();
  EXPECT_EQ(loader.counters().holes, (Holes{{"image", 1}}));
  EXPECT_LT(resident_bytes(), before + (size_t{60} << 20));
}

TEST_F(LoaderFaults, WithoutAnyThreadItSaysSo) {
  const TrainingData set = data(data_test::small_set(folder_, 6), 6);
  const data_test::NoNewThreads none;
  EXPECT_THROW(Loader(set, options_), Error);
}

}  // namespace
}  // namespace mdm
