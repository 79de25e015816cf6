// download_dataset as a user runs it: against a server with every fault of the web, killed again and again, on full
// disks, and with clocks that jump. MDM_SCRAPE_URLS and MDM_SCRAPE_KILLS set how much (scripts/soak.sh).
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <random>

#include "apps/workshop.h"
#include "mdm/core/digest.h"
#include "mdm/core/files.h"
#include "mdm/data/dataset.h"
#include "mdm/data/tar.h"
#include "mdm/data/tsv.h"
#include "support/fault_server.h"

namespace mdm::apps_test {
namespace {

namespace fs = std::filesystem;
using test_support::fault_list;
using test_support::FaultList;
using test_support::FaultServer;

int from_environment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

Outcome download(const Words& arguments, const RunOptions& options = {}) {
  return run(MDM_DOWNLOAD_DATASET, arguments, options);
}

std::vector<std::vector<std::string>> records(const fs::path& file) {
  const std::string text = read_text_file(file);
  TsvReader reader(text, file.string());
  std::vector<std::vector<std::string>> all;
  std::vector<std::string> fields;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    EXPECT_EQ(result, TsvReader::Result::kRecord) << reader.problem();
    all.push_back(fields);
  }
  return all;
}

class Download : public ::testing::Test {
 protected:
  std::string base() const { return "http://127.0.0.1:" + std::to_string(server_.port()); }
  fs::path out() const { return folder_.path() / "out"; }

  Words scrape(const std::string& list, const Words& more = {}) const {
    Words words = {"scrape",
                   "--urls",
                   list,
                   "--output-dir",
                   out().string(),
                   "--allow-private",
                   "--timeout",
                   "4",
                   "--stall-timeout",
                   "1",
                   "--connect-timeout",
                   "4",
                   "--tries",
                   "2",
                   "--transfers",
                   "128",
                   "--transfers-per-host",
                   "64",
                   "--samples-per-shard",
                   "100",
                   "--threads",
                   "2",
                   "--max-image-bytes",
                   "2000000",
                   "--patience",
                   "0"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  // What became of each row, by number: "" for a picture, else the cause; each row once.
  std::map<uint64_t, std::string> outcomes() const {
    std::map<uint64_t, std::string> all;
    for (const auto& entry : fs::directory_iterator(out())) {
      const std::string name = entry.path().filename().string();
      if (name.size() == 9 && name.substr(5) == ".tsv" && name[0] == '0') {
        for (const auto& row : records(entry.path())) {
          EXPECT_TRUE(all.emplace(std::stoull(row[1]), "").second) << row[1] << " came twice";
        }
      }
      if (holds(name, "_failures.tsv")) {
        for (const auto& row : records(entry.path())) {
          EXPECT_TRUE(all.emplace(std::stoull(row[0]), row[3]).second) << row[0] << " came twice";
        }
      }
    }
    return all;
  }

  // Nothing under a final name is in the making.
  void expect_whole_files() const {
    if (!fs::exists(out())) return;
    for (const auto& entry : fs::directory_iterator(out())) {
      const std::string name = entry.path().filename().string();
      if (name[0] == '.' || holds(name, ".tmp.")) continue;
      if (entry.path().extension() == ".tar") {
        const TarIndex tar = TarIndex::open(entry.path());
        EXPECT_TRUE(tar.ended()) << name;
        EXPECT_EQ(tar.problem(), "") << name;
        EXPECT_EQ(tar.members().size() % 3, 0u) << name;
      } else if (entry.path().extension() == ".tsv") {
        records(entry.path());
      } else {
        EXPECT_FALSE(json_of(entry.path()).is_discarded()) << name;
      }
    }
  }

  // Every picture of the list is there once, with the bytes that the server has.
  void expect_pictures(uint64_t count) const {
    const auto dataset = Dataset::open((out() / "index.tsv").string());
    ASSERT_EQ(dataset->size(), count);
    std::set<uint64_t> seen;
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < dataset->size(); ++i) {
      const uint64_t number = std::stoull(std::string(dataset->file(i)));
      EXPECT_TRUE(seen.insert(number).second);
      dataset->read_image(i, bytes);
      EXPECT_EQ(std::string(bytes.begin(), bytes.end()), server_.good_picture(number));
      EXPECT_EQ(dataset->caption(i), "picture " + std::to_string(number));
    }
  }

  FaultServer server_;
  Folder folder_;
};

TEST_F(Download, AccountsForEveryUrlOfAFaultyWorld) {
  const auto count = static_cast<uint64_t>(from_environment("MDM_SCRAPE_URLS", 2000));
  const FaultList list = fault_list(base(), count, /*faults=*/true);
  RunOptions options;
  options.seconds = 60 + static_cast<double>(count) / 20;
  const Outcome outcome = download(scrape(folder_.write("list.tsv", list.text)), options);
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  EXPECT_FALSE(outcome.timed_out);
  EXPECT_LE(outcome.max_rss_kib, 300 * 1024);
  ::testing::Test::RecordProperty("max_rss_kib", std::to_string(outcome.max_rss_kib));
  const auto became = outcomes();
  ASSERT_EQ(became.size(), count);
  uint64_t same = 0, kept_same = 0;
  std::map<std::string, uint64_t> wrong;
  for (uint64_t i = 0; i < count; ++i) {
    const auto& kind = *list.rows[i];
    if (std::string(kind.name) == "same") {
      ++same;
      kept_same += became.at(i).empty() ? 1 : 0;
      continue;
    }
    if (became.at(i) != kind.cause) ++wrong[std::string(kind.name) + " became " + became.at(i)];
  }
  for (const auto& [what, times] : wrong) ADD_FAILURE() << what << ": " << times << " times";
  EXPECT_GT(same, 1u);
  EXPECT_EQ(kept_same, 1u);
  for (const auto& [path, times] : server_.requests()) {
    const std::string kind = path.substr(1, path.find('/', 1) - 1);
    const int most = kind == "loop" ? 12 : kind == "far" ? 12 : kind == "good" ? 2 : 2;
    EXPECT_LE(times, most) << path;
  }
  expect_whole_files();
}

TEST_F(Download, SurvivesKillsAtAnyMoment) {
  const int kills = from_environment("MDM_SCRAPE_KILLS", 10);
  const uint64_t count = 600 * static_cast<uint64_t>(kills);
  const std::string list = folder_.write("list.tsv", fault_list(base(), count, /*faults=*/false).text);
  std::mt19937 random(20240501);
  RunOptions options;
  int killed = 0;
  Outcome outcome;
  do {
    ASSERT_LT(killed, 20 * kills);
    const auto begin = std::chrono::steady_clock::now();
    const int wait = std::uniform_int_distribution<int>(80, 300)(random);
    options.interrupt_by = SIGKILL;
    options.interrupt_when = [=] {
      return killed < kills && std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(wait);
    };
    outcome = download(scrape(list, {"--transfers", "4", "--samples-per-shard", "37"}), options);
    if (outcome.signal == SIGKILL) ++killed;
    expect_whole_files();
  } while (outcome.signal == SIGKILL);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GE(killed, kills / 2);
  ::testing::Test::RecordProperty("kills", killed);
  expect_pictures(count);
  for (const std::string& name : names_in(out())) EXPECT_FALSE(holds(name, ".part") || holds(name, "journal")) << name;
}

TEST_F(Download, IsStoppedBySignalsAndGoesOn) {
  const std::string list = folder_.write("list.tsv", fault_list(base(), 400, /*faults=*/false).text);
  RunOptions options;
  options.interrupt_when = [&] { return server_.requests().size() > 60; };
  const Words words = scrape(list, {"--transfers", "4"});
  Outcome outcome = download(words, options);
  EXPECT_EQ(outcome.code, 75) << outcome.err;
  EXPECT_TRUE(holds(outcome.err, "the same command goes on")) << outcome.err;
  outcome = download(words);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_pictures(400);
}

TEST_F(Download, AFullDiskLosesNothing) {
  const std::string list = folder_.write("list.tsv", fault_list(base(), 300, /*faults=*/false).text);
  RunOptions limited;
  limited.file_size_limit = 200000;  // what a full disk does to a write
  Outcome outcome = download(scrape(list), limited);
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_TRUE(holds(outcome.err, "can't be written: File too large")) << outcome.err;
  expect_whole_files();
  outcome = download(scrape(list));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_pictures(300);
  // A full one.
  fs::create_directory(folder_.path() / "disk");
  RunOptions small;
  small.small_disk = folder_.path() / "disk";
  small.disk_size = "600k";
  outcome =
      download(scrape(list, {"--output-dir", (folder_.path() / "disk" / "out").string(), "--ignore-space"}), small);
  if (!outcome.no_small_disk) {
    EXPECT_EQ(outcome.code, 1) << outcome.err;
    EXPECT_TRUE(holds(outcome.err, "No space left on device")) << outcome.err;
  }
  outcome = download(scrape(list, {"--output-dir", (folder_.path() / "disk" / "out").string()}), small);
  if (!outcome.no_small_disk) {
    EXPECT_EQ(outcome.code, 1) << outcome.err;
    EXPECT_TRUE(holds(outcome.err, "GiB are free")) << outcome.err;
  }
}

TEST_F(Download, AServerThatIsGoneEndsItAndAnotherCallGoesOn) {
  const std::string list = folder_.write("list.tsv", fault_list(base(), 400, /*faults=*/false).text);
  RunOptions options;
  bool gone = false;
  options.interrupt_by = 0;  // nothing is sent
  options.interrupt_when = [&] {
    if (!gone && server_.requests().size() > 50) {
      gone = true;
      server_.stop();
    }
    return gone;
  };
  const Words words = scrape(list, {"--transfers", "4", "--lost-after", "20", "--tries", "1"});
  Outcome outcome = download(words, options);
  EXPECT_TRUE(gone);
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_TRUE(holds(outcome.err, "the network is lost: ")) << outcome.err;
  server_.start_again();
  outcome = download(words);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_pictures(400);
}

TEST_F(Download, ClocksMayJump) {
  const FaultList list = fault_list(base(), 200, /*faults=*/true);
  RunOptions options;
  options.environment = {{"LD_PRELOAD", MDM_JUMPING_CLOCK}};
  const Outcome outcome = download(scrape(folder_.write("list.tsv", list.text)), options);
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  const auto became = outcomes();
  ASSERT_EQ(became.size(), 200u);
  for (uint64_t i = 0; i < 200; ++i) {
    if (std::string(list.rows[i]->name) != "same") {
      EXPECT_EQ(became.at(i), list.rows[i]->cause) << list.rows[i]->name;
    }
  }
}

TEST_F(Download, AFolderThatCannotBeWritten) {
  const std::string list = folder_.write("list.tsv", fault_list(base(), 10, /*faults=*/false).text);
  for (const std::string& place : {std::string("/proc/mdm"), folder_.write("file", "x") + "/out"}) {
    Words words = scrape(list);
    *(std::find(words.begin(), words.end(), "--output-dir") + 1) = place;
    expect_failure(download(words), 1, {place});
  }
  EXPECT_TRUE(server_.requests().empty());
}

// From the list to pictures of a trained model.
TEST_F(Download, WhatIsScrapedTrainsAndSamples) {
  std::string list = fault_list(base(), 60, /*faults=*/true).text;
  for (int i = 100; i < 140; ++i) {
    list += server_.url("good", static_cast<uint64_t>(i)) + "\ta \"red\" circle é \xF0\x9F\x98\x80 no. " +
            std::to_string(i) + "\n";
  }
  Outcome outcome = download(scrape(folder_.write("list.tsv", list), {"--validation-share", "0.2", "--resize", "64"}));
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  outcome = download({"verify", out().string(), "--contact-sheet", folder_.file("sheet.png")});
  EXPECT_EQ(outcome.code, 0) << outcome.err << outcome.out;
  EXPECT_GT(picture(folder_.file("sheet.png")).width, 100);
  const std::string run_folder = folder_.file("run");
  outcome = run(MDM_DEMO_DATASET,
                {"vocabulary", "--file-list", (out() / "train.tsv").string(), "--output", folder_.file("c.vocab")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  outcome = run(MDM_TRAIN_PARALLEL, {"--config-path",
                                     (project() / "configs/demo/shapes_32.yaml").string(),
                                     "--vocab_file",
                                     folder_.file("c.vocab"),
                                     "--file-list",
                                     (out() / "train.tsv").string(),
                                     "--validation-file-list",
                                     (out() / "validation.tsv").string(),
                                     "--output-dir",
                                     run_folder,
                                     "--num-training-steps",
                                     "3",
                                     "--warmup-steps",
                                     "1",
                                     "--trainer.batch-size",
                                     "4",
                                     "--save-freq",
                                     "3",
                                     "--sample-freq",
                                     "0",
                                     "--validation-freq",
                                     "3",
                                     "--validation-samples",
                                     "4",
                                     "--threads",
                                     "1",
                                     "--image_size",
                                     "32",
                                     "--max_bad_fraction",
                                     "0"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::string prompt = "a \"red\" circle é \xF0\x9F\x98\x80 no. 107";
  outcome = sample({"--checkpoint", run_folder + "/vis_model_000003.pth", "--prompt", prompt, "--num-inference-steps",
                    "2", "--sample-dir", folder_.file("drawn"), "--threads", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(captions(folder_.file("drawn")), std::vector<std::string>{prompt});
}

TEST_F(Download, VerifyFindsWhatIsBrokenLater) {
  const std::string list = folder_.write("list.tsv", fault_list(base(), 150, /*faults=*/false).text);
  ASSERT_EQ(download(scrape(list)).code, 0);
  ASSERT_EQ(download({"verify", out().string()}).code, 0);
  const fs::path tar = out() / "00000.tar";
  std::string bytes = bytes_of(tar);
  const TarMember member = *TarIndex::open(tar).find("000000007.jpg");
  std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(member.offset + member.size / 2), 60, '\0');
  write_file(tar, bytes);
  fs::resize_file(out() / "00001.tar", fs::file_size(out() / "00001.tar") / 2);
  const Outcome outcome = download({"verify", out().string()});
  EXPECT_EQ(outcome.code, 4) << outcome.err;
  EXPECT_TRUE(holds(outcome.out, "000000007.jpg")) << outcome.out;
  EXPECT_TRUE(holds(outcome.out, "00001.tar")) << outcome.out;
}

TEST_F(Download, TakesTheReferencesConfig) {
  folder_.write("cc12m_index.tsv", fault_list(base(), 30, /*faults=*/false).text);
  const std::string config =
      folder_.write("sample_cc12m.yaml",
                    "cc12m_index: cc12m_index.tsv # replace with your own\ncc12m_local_dir: out\n"
                    "validation_percentage: 0.2\nsplit_seed: 4\n");
  RunOptions options;
  options.folder = folder_.path();
  const Outcome outcome = download({"scrape", "--config", config, "--allow-private"}, options);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_pictures(30);
  const auto held_out = records(out() / "00000_validation.tsv").size();
  EXPECT_GT(held_out, 0u);
  EXPECT_LT(held_out, 15u);
  const std::string wrong = folder_.write("wrong.yaml", "cc12m_indx: x\n");
  expect_failure(download({"scrape", "--config", wrong}, options), 2, {"wrong.yaml:1", "unknown key 'cc12m_indx'"});
}

TEST_F(Download, SaysWhatIsWrongWithACall) {
  const std::string list = folder_.write("list.tsv", "http://127.0.0.1:1/a\tx\n");
  expect_failure(download({}), 2, {"usage: download_dataset scrape"});
  expect_failure(download({"scrap"}), 2, {"found 'scrap'"});
  expect_failure(download({"scrape", "--output-dir", "x"}), 2, {"scrape needs --urls"});
  expect_failure(download(scrape(folder_.file("absent"))), 3, {"absent", "no such file"});
  expect_failure(download(scrape(list, {"--worker-id", "2"})), 2, {"--worker-id"});
  expect_failure(download(scrape(list, {"--format", "xml"})), 2, {"--format: 'xml'"});
  expect_failure(download(scrape(list)), 1, {"none of 1 URLs could be reached"});
  const std::string named = folder_.write("named.tsv", "link\tcaption\nhttp://a/\tx\n");
  expect_failure(download(scrape(named)), 2, {"there is no column \"url\"", "link, caption"});
}

}  // namespace
}  // namespace mdm::apps_test
