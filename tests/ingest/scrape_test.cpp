// `scrape` against a server of the test's own: every row is accounted for once, whatever happens on the way.
#include "mdm/ingest/scrape.h"

#include <atomic>
#include <map>
#include <mutex>

#include "ingest/support.h"
#include "mdm/core/error.h"
#include "mdm/data/dataset.h"
#include "net/tiny_server.h"
#include "support/internet.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using ingest_test::FolderTest;
using ingest_test::jpeg;
using ingest_test::names_in;
using ingest_test::records;
using net_test::http_answer;
using net_test::ServerReply;
using net_test::ServerRequest;
using net_test::TinyServer;

class ScrapeTest : public FolderTest {
 protected:
  // /picture/N; everything else is not there. Tests put answers in front.
  ServerReply answer(const ServerRequest& request) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++asked_[request.path];
    }
    if (special_) {
      if (auto reply = special_(request)) return *reply;
    }
    if (request.path.rfind("/picture/", 0) == 0) {
      return {http_answer("200 OK", jpeg(std::stoi(request.path.substr(9))), {"Content-Type: image/jpeg"})};
    }
    return {http_answer("404 Not Found", "no")};
  }

  ScrapeSettings settings(const std::string& list) {
    ScrapeSettings settings;
    settings.urls = write("list.tsv", list);
    settings.output_dir = folder_ / "out";
    settings.samples_per_shard = 10;
    settings.validation_share = 0.2;
    settings.threads = 2;
    settings.http.allow_private = true;
    settings.http.first_wait_seconds = 0.01;
    settings.http.tries = 2;
    settings.http.connect_seconds = 5;
    settings.http.total_seconds = 10;
    return settings;
  }

  std::string pictures(int count, int first = 0) const {
    std::string list;
    for (int i = first; i < first + count; ++i) {
      list += server_.url("/picture/" + std::to_string(i)) + "\tpicture " + std::to_string(i) + "\n";
    }
    return list;
  }

  // File names and captions of a list that a data set can be opened from.
  std::map<std::string, std::string> opened(const fs::path& list) const {
    std::map<std::string, std::string> all;
    const auto dataset = Dataset::open(list.string());
    EXPECT_TRUE(dataset->bad_rows().empty());
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < dataset->size(); ++i) {
      dataset->read_image(i, bytes);
      EXPECT_GT(bytes.size(), 100u);
      EXPECT_TRUE(all.emplace(std::string(dataset->file(i)), std::string(dataset->caption(i))).second);
    }
    return all;
  }

  std::function<std::optional<ServerReply>(const ServerRequest&)> special_;
  std::mutex mutex_;
  std::map<std::string, int> asked_;
  TinyServer server_{[this](const ServerRequest& request) { return answer(request); }};
};

TEST_F(ScrapeTest, MakesShardsAndListsThatOpen) {
  const ScrapeResult result = scrape(settings(pictures(25)));
  EXPECT_EQ(result.counts.rows, 25u);
  EXPECT_EQ(result.counts.pictures, 25u);
  EXPECT_EQ(result.counts.all_failures(), 0u);
  EXPECT_EQ(result.shards, 3u);
  EXPECT_FALSE(result.stopped);
  auto all = opened(folder_ / "out" / "index.tsv");
  ASSERT_EQ(all.size(), 25u);
  EXPECT_EQ(all["000000007.jpg"], "picture 7");
  auto parts = opened(result.train_list);
  const auto validation = opened(result.validation_list);
  EXPECT_FALSE(validation.empty());
  EXPECT_GT(parts.size(), validation.size());
  parts.insert(validation.begin(), validation.end());
  EXPECT_EQ(parts, all);
  EXPECT_EQ(opened(folder_ / "out" / "00001.tar").size(), 10u);  // as a webdataset, too
  EXPECT_EQ(asked_.size(), 25u);
}

TEST_F(ScrapeTest, CountsEveryCauseOnce) {
  special_ = [&](const ServerRequest& request) -> std::optional<ServerReply> {
    if (request.path == "/html") return ServerReply{http_answer("200 OK", "<html>", {"Content-Type: image/jpeg"})};
    if (request.path == "/empty") return ServerReply{http_answer("200 OK", "")};
    if (request.path == "/robots") return ServerReply{http_answer("200 OK", jpeg(900), {"X-Robots-Tag: noai"})};
    if (request.path == "/text") return ServerReply{http_answer("200 OK", jpeg(901), {"Content-Type: text/plain"})};
    if (request.path == "/cut") return ServerReply{http_answer("200 OK", jpeg(902).substr(0, 500))};
    if (request.path == "/loop") return ServerReply{http_answer("302 Found", "", {"Location: /loop"})};
    if (request.path == "/same") return ServerReply{http_answer("200 OK", jpeg(0))};
    if (request.path == "/large") return ServerReply{http_answer("200 OK", std::string(200000, 'x'))};
    if (request.path == "/dead") return ServerReply{http_answer("503 Out", "")};
    return std::nullopt;
  };
  std::string list = pictures(5);
  for (const char* path :
       {"/html", "/empty", "/robots", "/text", "/cut", "/loop", "/same", "/large", "/dead", "/absent"}) {
    list += server_.url(path) + "\ta caption\n";
  }
  list += server_.url("/picture/3") + "\tagain\n";
  list += "ftp://127.0.0.1/x\tcaption\nno tab\n" + server_.url("/picture/50") + "\t\n" + server_.url("/picture/51") +
          "\tnot \xFF UTF-8\n" + server_.url("/picture/52") + "\t" + std::string(70000, 'x') + "\n" +
          server_.url("/picture/53") + std::string("\tnul \0 here\n", 12) + "http://127.0.0.1:1/x\tnobody\n";
  ScrapeSettings all = settings(list);
  all.http.max_bytes = 100000;
  const ScrapeResult result = scrape(all);
  const std::map<std::string, uint64_t> expected = {{"not_an_image", 1},  {"empty", 1},      {"robots", 1},
                                                    {"broken_image", 1},  {"redirect", 1},   {"duplicate_content", 1},
                                                    {"too_large", 1},     {"status_503", 1}, {"status_404", 1},
                                                    {"duplicate_url", 1}, {"url", 2},        {"caption", 4},
                                                    {"connection", 1}};
  EXPECT_EQ(result.counts.failures, expected);
  EXPECT_EQ(result.counts.rows, 23u);
  EXPECT_EQ(result.counts.pictures, 6u);
  EXPECT_EQ(result.counts.pictures + result.counts.all_failures(), result.counts.rows);
  // The failures' files say the same.
  std::map<std::string, uint64_t> written;
  std::set<std::string> keys;
  for (int shard = 0; shard < 3; ++shard) {
    for (const auto& row : records(folder_ / "out" / ("0000" + std::to_string(shard) + "_failures.tsv"))) {
      ++written[row[3]];
      EXPECT_TRUE(keys.insert(row[0]).second);
    }
  }
  EXPECT_EQ(written, expected);
}

TEST_F(ScrapeTest, CaptionsComeThroughUnchanged) {
  const std::vector<std::string> captions = {"tab\there",
                                             "quote \" and \"\"",
                                             "\"quoted\"",
                                             "emoji \xF0\x9F\x98\x80 é",
                                             "back\\slash",
                                             " spaces ",
                                             "carriage\rreturn",
                                             "<script>alert(1)</script>",
                                             "../../etc/passwd",
                                             "\xE2\x80\xAEright to left",
                                             std::string(60000, 'y')};
  std::string list;
  for (size_t i = 0; i < captions.size(); ++i)
    list += server_.url("/picture/" + std::to_string(i)) + '\t' + captions[i] + '\n';
  const ScrapeResult result = scrape(settings(list));
  EXPECT_EQ(result.counts.pictures, captions.size());
  auto all = opened(folder_ / "out" / "index.tsv");
  auto archive = opened(folder_ / "out" / "00000.tar");
  for (size_t i = 0; i < captions.size(); ++i) {
    const std::string file = "00000000" + std::to_string(i) + ".jpg";
    if (i < 10) {
      EXPECT_EQ(all[file], captions[i]);
      EXPECT_EQ(archive[file], captions[i]);
    }
  }
  EXPECT_EQ(all["000000010.jpg"], captions[10]);
}

TEST_F(ScrapeTest, NewlinesComeThroughFromJson) {
  const std::string list =
      "{\"url\":\"" + server_.url("/picture/1") + "\",\"caption\":\"two\\nlines \\\"and\\\" quotes\"}\n";
  ScrapeSettings all = settings("");
  all.urls = write("list.jsonl", list);
  all.validation_share = 0;
  scrape(all);
  EXPECT_EQ(opened(folder_ / "out" / "index.tsv")["000000000.jpg"], "two\nlines \"and\" quotes");
}

TEST_F(ScrapeTest, StopsAndGoesOnWithoutAskingAgain) {
  std::atomic<bool> stop{false};
  ScrapeSettings all = settings(pictures(60));
  all.stop = &stop;
  all.transfers = 4;
  all.transfers_per_host = 4;
  int calls = 0;
  ScrapeResult result;
  uint64_t last = 0;
  do {
    stop = false;
    ASSERT_LT(++calls, 40);
    result = scrape(all, [&](const ScrapeProgress& progress) {
      EXPECT_EQ(progress.rows_to_do, 60u);
      if (progress.counts.pictures >= last + 7) {
        stop = true;
        last = progress.counts.pictures;
      }
    });
  } while (result.stopped);
  EXPECT_GT(calls, 3);
  EXPECT_EQ(result.counts.pictures, 60u);
  EXPECT_EQ(opened(folder_ / "out" / "index.tsv").size(), 60u);
  int questions = 0;
  for (const auto& [path, times] : asked_) questions += times;
  EXPECT_LE(questions, 60 + 4 * calls);  // only what was on its way
  const ScrapeResult again = scrape(all);
  EXPECT_EQ(again.counts.pictures, 60u);
  EXPECT_FALSE(again.stopped);
  EXPECT_LE(questions, 60 + 4 * calls);
}

TEST_F(ScrapeTest, WorkersDivideTheShards) {
  ScrapeSettings all = settings(pictures(45) + pictures(5));  // the last five are duplicates of the first
  all.workers = 3;
  uint64_t pictures_seen = 0, rows = 0;
  for (int64_t worker = 0; worker < 3; ++worker) {
    all.worker = worker;
    const ScrapeResult result = scrape(all);
    pictures_seen += result.counts.pictures;
    rows += result.counts.rows;
  }
  EXPECT_EQ(rows, 50u);
  EXPECT_EQ(pictures_seen, 45u);
  EXPECT_EQ(opened(folder_ / "out" / "index.tsv").size(), 45u);
  for (const auto& [path, times] : asked_) EXPECT_EQ(times, 1) << path;
}

TEST_F(ScrapeTest, WhatAKillCutsOffIsRemoved) {
  ScrapeSettings all = settings(pictures(5));
  fs::create_directory(all.output_dir);
  for (const char* name :
       {"out/00000.tsv.tmp.123.4", "out/00001_stats.json.tmp.123", "out/train.tsv.tmp.9", "out/notes.tmp.txt"}) {
    write(name, "x");
  }
  all.workers = 2;
  all.worker = 0;
  scrape(all);
  const auto names = names_in(folder_ / "out");
  EXPECT_EQ(names.count("00000.tsv.tmp.123.4"), 0u);
  EXPECT_EQ(names.count("train.tsv.tmp.9"), 0u);
  EXPECT_EQ(names.count("00001_stats.json.tmp.123"), 1u);  // the other worker may be at it
  EXPECT_EQ(names.count("notes.tmp.txt"), 1u);             // not ours
}

TEST_F(ScrapeTest, AnIdleWorkerIsNoFault) {
  ScrapeSettings all = settings(pictures(5));
  all.workers = 4;
  all.worker = 3;
  EXPECT_EQ(scrape(all).counts.rows, 0u);
}

TEST_F(ScrapeTest, OneProcessAWorker) {
  ScrapeSettings all = settings(pictures(5));
  std::string what;
  scrape(all, [&](const ScrapeProgress&) {
    if (!what.empty()) return;
    try {
      scrape(all);
    } catch (const Error& error) {
      what = error.what();
    }
  });
  EXPECT_NE(what.find("another process works here as worker 0"), std::string::npos) << what;
}

TEST_F(ScrapeTest, AnotherListOrOtherSettingsAreRefused) {
  ScrapeSettings all = settings(pictures(5));
  scrape(all);
  all.samples_per_shard = 7;
  try {
    scrape(all);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("samples_per_shard (10, now 7)"), std::string::npos) << error.what();
  }
  EXPECT_THROW(scrape(settings(pictures(6))), ConfigError);
  ScrapeSettings same = settings(pictures(5));
  same.transfers = 3;  // how fast, not what
  same.validation_share = 0.5;
  EXPECT_EQ(scrape(same).counts.pictures, 5u);
}

TEST_F(ScrapeTest, RetriesWhatFailedWhenAsked) {
  std::atomic<bool> broken{true};
  special_ = [&](const ServerRequest& request) -> std::optional<ServerReply> {
    const int number = request.path.rfind("/picture/", 0) == 0 ? std::stoi(request.path.substr(9)) : 0;
    if (broken && number % 3 == 1) return ServerReply{http_answer("503 Later", "")};
    return std::nullopt;
  };
  ScrapeSettings all = settings(pictures(30) + server_.url("/absent") + "\tx\nftp://x\ty\n");
  EXPECT_EQ(scrape(all).counts.failures,
            (std::map<std::string, uint64_t>{{"status_503", 10}, {"status_404", 1}, {"url", 1}}));
  broken = false;
  EXPECT_EQ(scrape(all).counts.pictures, 20u);  // not asked to
  all.retry_failed = true;
  const ScrapeResult result = scrape(all);
  EXPECT_EQ(result.counts.pictures, 30u);
  EXPECT_EQ(result.counts.failures, (std::map<std::string, uint64_t>{{"status_404", 1}, {"url", 1}}));
  EXPECT_EQ(opened(folder_ / "out" / "index.tsv").size(), 30u);
  EXPECT_EQ(asked_["/picture/0"], 1);
  EXPECT_EQ(asked_["/absent"], 2);
}

TEST_F(ScrapeTest, TheSameFileIsKeptOnceAlsoOverRestarts) {
  special_ = [&](const ServerRequest& request) -> std::optional<ServerReply> {
    if (request.path.rfind("/same/", 0) == 0) return ServerReply{http_answer("200 OK", jpeg(7))};
    return std::nullopt;
  };
  std::string list = pictures(20);
  for (int i = 0; i < 20; ++i) list += server_.url("/same/" + std::to_string(i)) + "\tsame\n";
  ScrapeSettings all = settings(list);
  all.workers = 2;  // one after the other: each knows what the folder's shards of its own hold
  all.worker = 0;
  uint64_t duplicates = scrape(all).counts.failures["duplicate_content"];
  EXPECT_EQ(duplicates, 10u);  // shard 2 and picture 7 in shard 0
  all.drop_duplicates = false;
  all.worker = 1;
  EXPECT_EQ(scrape(all).counts.failures["duplicate_content"], 0u);
}

TEST_F(ScrapeTest, AServerThatIsGoneForGoodLosesNothing) {
  std::atomic<int> answered{0};
  std::atomic<bool> gone{true};
  special_ = [&](const ServerRequest&) -> std::optional<ServerReply> {
    if (gone && ++answered > 15) return ServerReply{""};  // closes without a word
    return std::nullopt;
  };
  ScrapeSettings all = settings(pictures(100));
  all.http.tries = 1;
  all.lost_after = 20;
  all.patience_seconds = 0;
  try {
    scrape(all);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the network is lost: "), std::string::npos) << error.what();
  }
  gone = false;
  const ScrapeResult result = scrape(all);
  EXPECT_EQ(result.counts.pictures, 100u);  // none was written off meanwhile
  EXPECT_EQ(result.counts.all_failures(), 0u);
}

TEST_F(ScrapeTest, WithoutNamesNothingIsRecorded) {
  {
    const std::lock_guard<std::mutex> lock(test_support::names_mutex);
    for (int i = 0; i < 12; ++i) test_support::names["host" + std::to_string(i) + ".test"] = {};
  }
  std::string list;
  for (int i = 0; i < 12; ++i) list += "http://host" + std::to_string(i) + ".test/x.jpg\tx\n";
  ScrapeSettings all = settings(list);
  try {
    scrape(all);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("none of 12 URLs could be reached"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("is there a network?"), std::string::npos) << error.what();
  }
  all.lost_after = 0;  // taken for the servers' fault
  EXPECT_EQ(scrape(all).counts.failures, (std::map<std::string, uint64_t>{{"host", 12}}));
}

TEST_F(ScrapeTest, OneDeadHostAmongOthersIsAFailureOfItsOwn) {
  ScrapeSettings all = settings(pictures(3) + "http://127.0.0.1:1/a\tx\nhttp://127.0.0.1:1/b\ty\n");
  all.lost_after = 1;
  all.patience_seconds = 0;
  const ScrapeResult result = scrape(all);
  EXPECT_EQ(result.counts.failures, (std::map<std::string, uint64_t>{{"connection", 2}}));
}

TEST_F(ScrapeTest, PrivateAddressesAreRefusedUnlessAllowed) {
  ScrapeSettings all = settings(pictures(5));
  all.http.allow_private = false;
  EXPECT_EQ(scrape(all).counts.failures, (std::map<std::string, uint64_t>{{"private_address", 5}}));
  EXPECT_TRUE(asked_.empty());
}

TEST_F(ScrapeTest, RobotsAreHeededUnlessToldOtherwise) {
  special_ = [&](const ServerRequest& request) -> std::optional<ServerReply> {
    const std::string tag = request.path == "/picture/0"   ? "noindex"
                            : request.path == "/picture/1" ? "libmdm: noai"
                                                           : "other: noai";
    return ServerReply{http_answer("200 OK", jpeg(std::stoi(request.path.substr(9))), {"X-Robots-Tag: " + tag})};
  };
  ScrapeSettings all = settings(pictures(3));
  EXPECT_EQ(scrape(all).counts.failures, (std::map<std::string, uint64_t>{{"robots", 2}}));
  all.output_dir = folder_ / "all";
  all.heed_robots = false;
  EXPECT_EQ(scrape(all).counts.pictures, 3u);
}

TEST_F(ScrapeTest, ATooSmallDiskIsNoticedBefore) {
  ScrapeSettings all = settings(pictures(3));
  all.resize_side = 65000;  // three times 3 GB, by the guess
  std::string list;
  for (int i = 0; i < 200000; ++i) list += "http://127.0.0.1:1/" + std::to_string(i) + "\tx\n";
  all.urls = write("long.tsv", list);
  try {
    scrape(all);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("GiB are free"), std::string::npos) << error.what();
  }
}

TEST_F(ScrapeTest, AFolderThatCannotBeWritten) {
  ScrapeSettings all = settings(pictures(3));
  all.output_dir = write("a file", "x") / "below";
  EXPECT_THROW(scrape(all), Error);
}

}  // namespace
}  // namespace mdm::ingest
