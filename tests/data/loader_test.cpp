#include "mdm/data/loader.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "data/test_data.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

using data_test::TemporaryFolder;

class LoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::kOff);
    options_.reader.image_size = 16;
    options_.reader.smaller_side_size = 18;
    options_.reader.random_crop = options_.reader.random_flip = true;
    options_.reader.max_bad_fraction = 1;
    options_.seed = 3;
  }
  void TearDown() override { set_log_level(LogLevel::kInfo); }

  TrainingData data(const std::string& list, int64_t rows) const {
    DatasetOptions options;
    options.numbers = {"score"};
    return open_training_data(list, options_.reader, tokenizer_.get(), options_.seed, rows, options);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_ = data_test::word_tokenizer();
  LoaderOptions options_;
};

bool same(const Batch& a, const Batch& b) {
  if (a.micros.size() != b.micros.size()) return false;
  for (const auto& [name, values] : a.micros) {
    if (b.micros.count(name) == 0 || !values.equal(b.micros.at(name))) return false;
  }
  return a.step == b.step && a.first_row == b.first_row && a.captions == b.captions && a.samples == b.samples &&
         a.images.equal(b.images) && a.weights.equal(b.weights) && a.token_length == b.token_length;
}

TEST_F(LoaderTest, BatchesOfThePlan) {
  const TrainingData set = data(data_test::small_set(folder_, 20), 6);
  options_.reader.caption_dropout = 0;
  options_.micros = {{"score", 5}, {"absent", 1}, {"scale", 64}};
  Loader loader(set, options_);
  for (uint64_t step = 0; step < 10; ++step) {
    const Batch batch = loader.next();
    const auto plan = set.plan->batch(step);
    EXPECT_EQ(batch.step, step);
    EXPECT_EQ(batch.total_rows, 6);
    EXPECT_EQ(batch.images.sizes(), (std::vector<int64_t>{6, 16, 16, 3}));
    EXPECT_EQ(batch.token_length, 0);
    EXPECT_EQ(batch.micros.size(), 2U);
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(batch.captions[i], "caption " + std::to_string(plan[i].sample));
      EXPECT_EQ(batch.samples[i], plan[i].number);
      EXPECT_EQ(batch.weights.data_ptr<float>()[i], 1);
      EXPECT_EQ(batch.micros.at("scale").data_ptr<float>()[i], 20);
      EXPECT_EQ(batch.micros.at("score").data_ptr<float>()[i], 0.5f);
    }
  }
  EXPECT_EQ(loader.counters().samples, 60U);
  EXPECT_EQ(loader.counters().all_holes(), 0U);
}

// F13: stopped at every step of two epochs, the rest is what the uninterrupted run gives.
TEST_F(LoaderTest, GoesOnAtAnyStep) {
  const std::string list = data_test::small_set(folder_, 11, {4});
  options_.reader.token_buckets = {3, 8};
  const TrainingData set = data(list, 4);
  std::vector<Batch> all;
  Loader whole(set, options_);
  for (int i = 0; i < 8; ++i) all.push_back(whole.next());
  for (uint64_t start = 0; start < 7; ++start) {
    options_.start_step = start;
    Loader loader(data(list, 4), options_);
    EXPECT_TRUE(same(loader.next(), all[start])) << start;
    EXPECT_TRUE(same(loader.next(), all[start + 1])) << start;
  }
}

TEST_F(LoaderTest, SlicesMakeTheWholeBatch) {
  const TrainingData set = data(data_test::small_set(folder_, 30, {1, 2, 3}), 8);
  Loader whole(set, options_);
  for (const int64_t world : {2, 4}) {
    std::vector<std::unique_ptr<Loader>> ranks;
    for (int64_t rank = 0; rank < world; ++rank) {
      LoaderOptions options = options_;
      const int64_t rows = 8 / world / 2;  // two micro-steps
      options.slices = {{rank * rows, rows}, {4 + rank * rows, rows}};
      ranks.push_back(std::make_unique<Loader>(set, options));
    }
    Loader again(set, options_);
    for (int step = 0; step < 5; ++step) {
      const Batch expected = again.next();
      for (int micro = 0; micro < 2; ++micro) {
        for (auto& rank : ranks) {
          const Batch part = rank->next();
          EXPECT_EQ(part.step, expected.step);
          EXPECT_TRUE(part.images.equal(expected.images.narrow(0, part.first_row, part.size())));
          EXPECT_TRUE(part.weights.equal(expected.weights.narrow(0, part.first_row, part.size())));
          for (size_t i = 0; i < part.captions.size(); ++i) {
            EXPECT_EQ(part.captions[i], expected.captions[static_cast<size_t>(part.first_row) + i]);
          }
        }
      }
    }
  }
}

TEST_F(LoaderTest, ThreadsAndQueueChangeNothing) {
  const TrainingData set = data(data_test::small_set(folder_, 40, {7}), 8);
  std::vector<Batch> first;
  for (const int64_t threads : {1, 2, 16}) {
    for (const int64_t ahead : {0, 1, 100}) {
      options_.reader.num_readers = threads;
      options_.reader.reader_buffer_size = ahead;
      Loader loader(set, options_);
      for (size_t i = 0; i < 12; ++i) {
        Batch batch = loader.next();
        if (first.size() <= i) {
          first.push_back(std::move(batch));
        } else {
          EXPECT_TRUE(same(batch, first[i]));
        }
      }
    }
  }
}

TEST_F(LoaderTest, HolesKeepTheirRows) {
  const TrainingData set = data(data_test::small_set(folder_, 10, {2, 5}), 10);
  options_.reader.caption_dropout = 0;
  options_.micros = {{"score", 5}};
  Loader loader(set, options_);
  const Batch batch = loader.next();
  const auto plan = set.plan->batch(0);
  for (size_t i = 0; i < 10; ++i) {
    const bool hole = plan[i].sample == 2 || plan[i].sample == 5;
    EXPECT_EQ(batch.weights.data_ptr<float>()[i], hole ? 0 : 1);
    EXPECT_EQ(batch.captions[i].empty(), hole);
    EXPECT_EQ(batch.micros.at("scale").data_ptr<float>()[i], hole ? 16 : 20);
    EXPECT_EQ(batch.micros.at("score").data_ptr<float>()[i], hole ? 5 : 0.5f);
    const at::Tensor pixels = batch.images.select(0, static_cast<int64_t>(i));
    const auto* bytes = pixels.data_ptr<uint8_t>();
    EXPECT_EQ(std::all_of(bytes, bytes + 16 * 16 * 3, [](uint8_t v) { return v == 127; }), hole);
  }
  EXPECT_EQ(loader.counters().holes, (std::map<std::string, uint64_t>{{"image", 2}}));
}

// F12: planted faults are counted one by one; half a percent passes, five percent do not.
TEST_F(LoaderTest, PlantedFaults) {
  options_.reader.max_bad_fraction = 0.01;
  std::vector<int> broken;
  for (int i = 100; i < 2000; i += 200) broken.push_back(i);
  {
    const TrainingData set = data(data_test::small_set(folder_, 2000, broken), 50);
    Loader loader(set, options_);
    for (uint64_t i = 0; i < set.plan->first_step(3); ++i) loader.next();
    EXPECT_EQ(loader.counters().samples, 6000U);
    EXPECT_EQ(loader.counters().holes, (std::map<std::string, uint64_t>{{"image", 30}}));
  }
  for (int i = 10; i < 2000; i += 20) {
    if (i % 200 != 100) broken.push_back(i);
  }
  ASSERT_EQ(broken.size(), 110U);  // 5.5 %
  const TrainingData set = data(data_test::small_set(folder_, 2000, broken), 50);
  Loader loader(set, options_);
  try {
    for (int i = 0; i < 40; ++i) loader.next();
    FAIL() << "five percent of broken samples passed";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("image "), std::string::npos) << error.what();
  }
  EXPECT_LT(loader.counters().samples, 1000U);
  // Exactly the planted ones among those handed out.
  uint64_t expected = 0;
  for (uint64_t step = 0; step < loader.counters().samples / 50; ++step) {
    for (const auto& row : set.plan->batch(step)) {
      expected += std::count(broken.begin(), broken.end(), static_cast<int>(row.sample));
    }
  }
  EXPECT_EQ(loader.counters().all_holes(), expected);
}

// Every kind of fault that files have, in turn: of pictures (found when they are read) and, with `rows`, of the list
// and the archive (found when they are opened).
std::string faulty_set(const TemporaryFolder& folder, int count, int every, bool rows) {
  const std::string jpeg =
      data_test::bytes_of((std::filesystem::path(MDM_TEST_DATA) / "golden/reader/decode/images/gray.jpg").string());
  data_test::Members members;
  std::string list = "tar\tfile\tcaption\tscore\n";
  for (int i = 0; i < count; ++i) {
    const std::string name = std::to_string(i) + ".png";
    const int fault = i % every == 0 ? (i / every) % (rows ? 5 : 3) : -1;
    std::string bytes = i % 2 == 0 ? data_test::picture(i) : jpeg;
    if (fault == 0) bytes = "this is no picture";
    if (fault == 1) bytes = jpeg.substr(0, jpeg.size() / 2);
    if (fault == 2) {
      bytes = data_test::picture(i);
      bytes[29] = static_cast<char>(bytes[29] ^ 1);  // the first chunk's checksum
    }
    if (fault != 3) members.emplace_back(name, bytes);
    list += fault == 4 ? "images.tar\t" + name + "\n" : "images.tar\t" + name + "\tcaption\t0.5\n";
  }
  data_test::write_tar(folder, "images.tar", members);
  return folder.write("list.tsv", list);
}

// F12: half a percent passes, each fault counted where it belongs.
TEST_F(LoaderTest, FaultsOfAllKindsTogetherPassWhenTheyAreFew) {
  options_.reader.max_bad_fraction = 0.01;
  const TrainingData set = data(faulty_set(folder_, 2000, 200, true), 50);
  EXPECT_EQ(set.dataset->bad_rows(), (std::map<std::string, uint64_t>{{"line", 2}, {"member", 2}}));
  EXPECT_EQ(set.dataset->size(), 1996U);
  Loader loader(set, options_);
  for (uint64_t i = 0; i < set.plan->first_step(1); ++i) loader.next();
  EXPECT_EQ(loader.counters().holes, (std::map<std::string, uint64_t>{{"image", 6}}));
}

// F12: five percent stop the run, before it begins or while it reads.
TEST_F(LoaderTest, FaultsOfAllKindsTogetherStopWhenTheyAreMany) {
  options_.reader.max_bad_fraction = 0.01;
  const auto expect_stop = [](const auto& action, const std::vector<std::string>& parts) {
    try {
      action();
      FAIL() << "five percent of faults passed";
    } catch (const DataError& error) {
      for (const auto& part : parts) EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  const std::string rows = faulty_set(folder_, 2000, 20, true);
  expect_stop([&] { data(rows, 50); }, {"40 of 2000 rows are bad (line 20, member 20)", "max_bad_fraction = 0.01"});

  const TrainingData set = data(faulty_set(folder_, 2000, 20, false), 50);
  Loader loader(set, options_);
  const uint64_t epoch = set.plan->first_step(1);
  uint64_t step = 0;
  expect_stop(
      [&] {
        for (; step < epoch; ++step) loader.next();
      },
      {"samples could not be read (since the start: image ", "max_bad_fraction = 0.01"});
  EXPECT_LT(step, epoch / 2);
}

// A share above the limit is found however many samples have passed, and restored counters go on judging.
TEST_F(LoaderTest, OnlyTheLastTenThousandCount) {
  options_.reader.max_bad_fraction = 0.01;
  const TrainingData set = data(data_test::small_set(folder_, 50), 50);
  LoaderCounters counters;
  counters.samples = 1000000;
  counters.holes["file"] = 5000;
  for (uint64_t i = 0; i < 100; ++i) counters.recent_holes.push_back(990040 + i);
  Loader sound(set, options_, counters);
  sound.next();
  EXPECT_EQ(sound.counters().recent_holes.size(), 90U);  // ten left the window
  for (uint64_t i = 0; i < 15; ++i) counters.recent_holes.push_back(999900 + i);
  Loader broken(set, options_, LoaderCounters::restore(counters.save()));
  EXPECT_THROW(broken.next(), DataError);
}

TEST_F(LoaderTest, CountersComeBack) {
  LoaderCounters counters;
  counters.samples = 12345678901234;
  counters.holes = {{"image", 3}, {"file", 1}};
  counters.recent_holes = {5, 900};
  counters.dropped_captions = 77;
  const LoaderCounters back = LoaderCounters::restore(counters.save());
  EXPECT_EQ(back.save(), counters.save());
  EXPECT_EQ(back.samples, counters.samples);
  EXPECT_EQ(counters.save().find('\n'), std::string::npos);
  for (const char* text : {"", "{}", "[]", "{\"samples\": \"x\"}", "nonsense"}) {
    EXPECT_THROW(LoaderCounters::restore(text), DataError) << text;
  }
}

TEST_F(LoaderTest, CaptionDropout) {
  const TrainingData set = data(data_test::small_set(folder_, 100), 100);
  options_.reader.caption_dropout = 0.25;
  Loader loader(set, options_);
  int empty = 0;
  std::set<std::string> patterns;
  for (int i = 0; i < 30; ++i) {
    std::string pattern;
    for (const auto& caption : loader.next().captions) pattern += caption.empty() ? '1' : '0';
    empty += static_cast<int>(std::count(pattern.begin(), pattern.end(), '1'));
    patterns.insert(pattern);
  }
  EXPECT_NEAR(empty, 750, 120);  // five standard deviations
  EXPECT_EQ(patterns.size(), 30U);
  EXPECT_EQ(loader.counters().dropped_captions, static_cast<uint64_t>(empty));
}

// F12: an archive that is cut or vanishes while a run goes on gives holes, no crash and no hang.
TEST_F(LoaderTest, FileVanishes) {
  const std::string list = data_test::small_set(folder_, 60);
  const TrainingData set = data(list, 20);
  options_.reader.reader_buffer_size = 0;
  Loader loader(set, options_);
  EXPECT_EQ(loader.next().weights.sum().item<float>(), 20);
  std::filesystem::resize_file(folder_.path("images.tar"), 5000);
  for (int i = 0; i < 10; ++i) loader.next();
  EXPECT_GT(loader.counters().holes.at("file"), 100U);
  const Batch last = loader.next();
  const auto plan = set.plan->batch(last.step);
  EXPECT_EQ(last.captions.size(), 20U);
}

// F12: an archive that is removed while it is open stays readable; one that has to be opened again gives holes.
TEST_F(LoaderTest, FileIsRemoved) {
  options_.reader.reader_buffer_size = 0;
  options_.reader.num_readers = 1;
  {
    const TrainingData set = data(data_test::small_set(folder_, 60), 20);
    Loader loader(set, options_);
    loader.next();
    ASSERT_TRUE(std::filesystem::remove(folder_.path("images.tar")));
    for (int i = 0; i < 10; ++i) EXPECT_EQ(loader.next().weights.sum().item<float>(), 20);
    EXPECT_EQ(loader.counters().all_holes(), 0U);
  }
  std::string list = "tar\tfile\tcaption\tscore\n";
  for (const char* tar : {"kept", "removed"}) {
    data_test::Members members;
    for (int i = 0; i < 30; ++i) {
      members.emplace_back(std::to_string(i), data_test::picture(i));
      list += std::string(tar) + ".tar\t" + std::to_string(i) + "\t" + tar + "\t0.5\n";
    }
    data_test::write_tar(folder_, std::string(tar) + ".tar", members);
  }
  options_.reader.num_kept_files = 1;
  options_.reader.caption_dropout = 0;
  const TrainingData set = data(folder_.write("two.tsv", list), 20);
  Loader loader(set, options_);
  loader.next();
  ASSERT_TRUE(std::filesystem::remove(folder_.path("removed.tar")));
  uint64_t holes = 0;
  for (int i = 0; i < 12; ++i) {
    const Batch batch = loader.next();
    const auto plan = set.plan->batch(batch.step);
    for (size_t row = 0; row < plan.size(); ++row) {
      const bool hole = batch.weights[static_cast<int64_t>(row)].item<float>() == 0;
      EXPECT_FALSE(hole && set.dataset->archive(plan[row].sample) == "kept.tar") << "step " << batch.step;
      holes += hole ? 1 : 0;
    }
  }
  EXPECT_GT(holes, 60U) << "half of the samples lie in the archive that is gone";
  EXPECT_EQ(loader.counters().holes, (std::map<std::string, uint64_t>{{"file", loader.counters().all_holes()}}));
}

TEST_F(LoaderTest, EndsAtAnyTime) {
  const TrainingData set = data(data_test::small_set(folder_, 50), 16);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 60; ++i) {
    Loader loader(set, options_);
    for (int k = 0; k < i % 3; ++k) loader.next();
    if (i % 4 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(i % 5));
  }
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 60);
}

TEST_F(LoaderTest, ReferenceOrder) {
  options_.reader.compat = ReaderCompat::kMlx;
  options_.reader.token_buckets = {};
  const TrainingData set = data(data_test::small_set(folder_, 5), 2);
  Loader loader(set, options_);
  for (int i = 0; i < 10; ++i) {
    const Batch batch = loader.next();
    for (int k = 0; k < 2; ++k)
      EXPECT_EQ(batch.captions[static_cast<size_t>(k)], "caption " + std::to_string((2 * i + k) % 5));
  }
}

TEST_F(LoaderTest, Embeddings) {
  std::string npy("\x93NUMPY\x01\0", 8);
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
  npy += static_cast<char>(header.size());
  npy += '\0' + header + std::string("\0\0\x80\x3F\0\0\0\x40", 8);
  data_test::write_tar(folder_, "x.tar", {{"a", data_test::picture(1)}, {"e", npy}, {"bad", "x"}});
  DatasetOptions options;
  options.embeddings = options_.embeddings = true;
  options_.reader.caption_dropout = 0;
  options_.reader.shuffle = false;
  const TrainingData set = open_training_data(
      folder_.write("s.tsv",
                    "tar\tfile\tcaption\ttext_tar\ttext_file\nx.tar\ta\tone\tx.tar\te\nx.tar\ta\ttwo\tx.tar\tbad\n"),
      options_.reader, nullptr, 0, 2, options);
  {
    Loader loader(set, options_);
    const Batch batch = loader.next();
    ASSERT_EQ(batch.embeddings.size(), 2U);
    EXPECT_EQ(batch.embeddings[0].sizes(), (std::vector<int64_t>{1, 2}));
    EXPECT_FALSE(batch.embeddings[1].defined());
    EXPECT_EQ(loader.counters().holes, (std::map<std::string, uint64_t>{{"embedding", 1}}));
  }
  options_.reader.caption_dropout = 1;
  Loader loader(set, options_);
  EXPECT_FALSE(loader.next().embeddings[0].defined());
}

TEST_F(LoaderTest, RefusesWhatCannotBe) {
  const TrainingData set = data(data_test::small_set(folder_, 5), 4);
  const auto refused = [&](const LoaderOptions& options) { EXPECT_THROW(Loader(set, options), ConfigError); };
  LoaderOptions options = options_;
  options.reader.image_size = -1;
  refused(options);
  options = options_;
  options.reader.smaller_side_size = 8;
  refused(options);
  for (const LoaderSlice slice : {LoaderSlice{3, 2}, LoaderSlice{-1, 1}, LoaderSlice{0, 0}}) {
    options = options_;
    options.slices = {slice};
    refused(options);
  }
}

}  // namespace
}  // namespace mdm
