// `fetch` from servers of the test's own, from folders and from moto's S3: what lies in the folder afterwards trains.
#include "mdm/ingest/fetch.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "data/test_data.h"
#include "ingest/fetch_sources.h"
#include "ingest/fetch_store.h"
#include "mdm/config/command_line.h"
#include "mdm/data/dataset.h"
#include "mdm/data/tar.h"
#include "mdm/data/tsv.h"
#include "mdm/ingest/download_job.h"
#include "mdm/net/s3.h"
#include "net/moto_server.h"
#include "net/tiny_server.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using data_test::bytes_of;
using data_test::picture;
using data_test::TemporaryFolder;
using net_test::http_answer;
using net_test::serve_file;
using net_test::ServerReply;
using net_test::ServerRequest;
using net_test::TinyServer;

// An archive with pictures `first`, ..., and the TSV that lists them; captions hold what a TSV must quote.
struct Shard {
  std::string tar, tsv;
};
std::string caption_of(int number) { return "caption \"" + std::to_string(number) + "\"\tand\nmore \xC3\xA9"; }
Shard make_shard(const TemporaryFolder& folder, const std::string& tar_name, int first, int count) {
  data_test::Members members;
  Shard shard;
  shard.tsv = "tar\tfile\tcaption\tscore\r\n";
  for (int i = first; i < first + count; ++i) {
    const std::string name = std::to_string(i) + ".png";
    members.emplace_back(name, picture(i));
    members.emplace_back(std::to_string(i) + ".txt", caption_of(i));
    shard.tsv += tsv_field(tar_name) + '\t' + name + '\t' + tsv_field(caption_of(i)) + "\t0.5\r\n";
  }
  shard.tar = bytes_of(write_tar(folder, "made.tar", members));
  return shard;
}

class FetchTest : public testing::Test {
 protected:
  FetchTest() : server_([this](const ServerRequest& request) { return answer(request); }) {
    for (const char* variable : {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID",
                                 "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"}) {
      ::unsetenv(variable);
    }
    ::setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null/none", 1);
    ::setenv("AWS_CONFIG_FILE", "/dev/null/none", 1);
  }

  ServerReply answer(const ServerRequest& request) {
    const std::lock_guard lock(mutex_);
    ++asked_[request.path];
    const auto found = site_.find(request.path);
    if (found == site_.end()) return {http_answer("404 Not Found", "")};
    ServerReply reply = serve_file(request, found->second, "\"tag" + std::to_string(found->second.size()) + '"');
    if (slow_ == request.path) {
      reply.first_part = reply.bytes.size() / 2;
      reply.pause_ms = 5000;
    }
    return reply;
  }
  void serve(const std::string& path, const std::string& bytes) {
    const std::lock_guard lock(mutex_);
    site_[path] = bytes;
  }
  int asked(const std::string& path) {
    const std::lock_guard lock(mutex_);
    return asked_[path];
  }
  // An index with `count` shards of three pictures, tars beside their TSVs.
  void serve_set(int count) {
    std::string index = "filename\n";
    for (int i = 0; i < count; ++i) {
      const std::string name = "s" + std::to_string(i);
      const Shard shard = make_shard(folder_, name + ".tar", 3 * i, 3);
      serve("/set/" + name + ".tsv", shard.tsv);
      serve("/set/" + name + ".tar", shard.tar);
      index += name + ".tsv\n";
    }
    serve("/set/list.tsv", index);
  }

  FetchSettings settings(std::vector<std::string> sources, const std::string& output = "out") const {
    FetchSettings settings;
    settings.sources = std::move(sources);
    settings.folder = folder_.folder() / output;
    settings.http.allow_private = true;
    settings.http.first_wait_seconds = 0.01;
    settings.http.tries = 2;
    settings.parallel = 3;
    return settings;
  }
  FetchResult fetch(const FetchSettings& settings) { return fetch_dataset(settings, stop_); }
  FetchResult fetch(std::vector<std::string> sources) { return fetch(settings(std::move(sources))); }
  std::string out(const std::string& name) const { return folder_.path("out/" + name); }

  // The captions, by training's own reader.
  static std::multiset<std::string> captions(const fs::path& list) {
    const auto dataset = Dataset::open(list.string());
    std::multiset<std::string> found;
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < dataset->size(); ++i) {
      found.insert(std::string(dataset->caption(i)));
      dataset->read_image(i, bytes);
      EXPECT_GT(bytes.size(), 50u);
    }
    EXPECT_TRUE(dataset->bad_rows().empty());
    return found;
  }
  static std::multiset<std::string> expected(int first, int count) {
    std::multiset<std::string> all;
    for (int i = first; i < first + count; ++i) all.insert(caption_of(i));
    return all;
  }
  // Names in the output folder, without the hidden ones.
  std::set<std::string> names() const {
    std::set<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder_.folder() / "out")) {
      const std::string name = entry.path().filename().string();
      if (name[0] != '.') all.insert(name);
    }
    return all;
  }

  TemporaryFolder folder_;
  std::mutex mutex_;
  std::map<std::string, std::string> site_;
  std::map<std::string, int> asked_;
  std::string slow_;
  std::atomic<bool> stop_{false};
  TinyServer server_;
};

TEST_F(FetchTest, AnIndexBringsTsvsAndTarsThatTrain) {
  serve_set(3);
  const std::string url = server_.url("/set/list.tsv");
  const FetchResult first = fetch({url});
  EXPECT_EQ(first.fetched, 7u);
  EXPECT_EQ(first.kept, 0u);
  EXPECT_EQ(first.failed, 0u);
  EXPECT_EQ(first.shards, 3u);
  EXPECT_EQ(first.rows, 9u);
  EXPECT_EQ(first.index, folder_.folder() / "out/index.tsv");
  EXPECT_EQ(captions(first.index), expected(0, 9));
  EXPECT_EQ(names(), (std::set<std::string>{"index.tsv", "s0.tar", "s0.tsv", "s1.tar", "s1.tsv", "s2.tar", "s2.tsv"}));
  const std::string tsv = bytes_of(out("s1.tsv"));
  EXPECT_EQ(tsv.find('\r'), std::string::npos) << "lines end with LF";
  EXPECT_EQ(tsv.substr(0, 26), "tar\tfile\tcaption\tscore\ns1.");

  const FetchResult again = fetch({url});
  EXPECT_EQ(again.fetched, 0u);
  EXPECT_EQ(again.kept, 7u);
  EXPECT_EQ(again.bytes, 0u);
  for (const char* path : {"/set/list.tsv", "/set/s0.tsv", "/set/s0.tar"}) EXPECT_EQ(asked(path), 1) << path;
  fs::resize_file(out("s2.tar"), 100);
  EXPECT_EQ(fetch({url}).fetched, 1u) << "a file of another size is fetched again";
  EXPECT_EQ(captions(first.index), expected(0, 9));

  // The whole folder may be moved.
  fs::rename(folder_.folder() / "out", folder_.folder() / "moved");
  EXPECT_EQ(captions(folder_.path("moved/index.tsv")), expected(0, 9));
}

TEST_F(FetchTest, ShardsTarsAndUrlsByThemselves) {
  serve_set(2);
  serve("/set/s1.tar?signature=a%2Fb", site_.at("/set/s1.tar"));
  const FetchResult both = fetch({server_.url("/set/s0.tsv"), server_.url("/set/s1.tar?signature=a%2Fb")});
  EXPECT_EQ(both.shards, 2u);
  EXPECT_EQ(asked("/set/s1.tar?signature=a%2Fb"), 1) << "a query is sent";
}

TEST_F(FetchTest, WithoutTarsTheTsvsNameTheirUrls) {
  serve_set(1);
  FetchSettings only = settings({server_.url("/set/list.tsv")});
  only.tars = false;
  const FetchResult result = fetch(only);
  EXPECT_EQ(names(), (std::set<std::string>{"index.tsv", "s0.tsv"}));
  EXPECT_NE(bytes_of(out("s0.tsv")).find("\n" + server_.url("/set/s0.tar") + "\t0.png\t"), std::string::npos);
  EXPECT_EQ(asked("/set/s0.tar"), 0);
  DatasetOptions options;
  options.resolve_url = [&](const std::string& url) {
    HttpOptions http;
    http.allow_private = true;
    HttpClient(http).download(url, folder_.folder() / "loaded.tar");
    return folder_.folder() / "loaded.tar";
  };
  EXPECT_EQ(Dataset::open(result.index.string(), options)->size(), 3u);
}

TEST_F(FetchTest, NamesAreKeptApart) {
  const Shard a = make_shard(folder_, "x.tar", 0, 2), b = make_shard(folder_, "x.tar", 2, 2),
              c = make_shard(folder_, "dir%20name/a%20b.tar", 4, 1);
  serve("/a/x.tsv", a.tsv);
  serve("/a/x.tar", a.tar);
  serve("/b/x.tsv", b.tsv);
  serve("/b/x.tar", b.tar);
  serve("/index.tsv", c.tsv);  // a shard that is called as our own list is
  serve("/dir%20name/a%20b.tar", c.tar);
  folder_.write("out_file", "");
  fs::create_directory(folder_.folder() / "out");
  folder_.write("out/a b.tar", "mine");
  const std::vector<std::string> sources = {server_.url("/a/x.tsv"), server_.url("/b/x.tsv"),
                                            server_.url("/index.tsv")};
  const FetchResult result = fetch(sources);
  EXPECT_EQ(result.failed, 0u);
  EXPECT_EQ(captions(result.index), expected(0, 5));
  EXPECT_EQ(bytes_of(out("a b.tar")), "mine") << "what others have put there stays";
  const auto before = names();
  EXPECT_EQ(before.size(), 8u);
  EXPECT_EQ(fetch(sources).fetched, 0u);
  EXPECT_EQ(names(), before) << "names last";
}

TEST_F(FetchTest, WorkersDivideTheFiles) {
  serve_set(5);
  std::multiset<std::string> all;
  std::set<std::string> shards;
  for (int worker = 0; worker < 3; ++worker) {
    FetchSettings mine = settings({server_.url("/set/list.tsv")});
    mine.worker = worker;
    mine.workers = 3;
    mine.seed = 7;
    const FetchResult result = fetch(mine);
    EXPECT_EQ(result.index.filename(), "index." + std::to_string(worker) + ".tsv");
    EXPECT_EQ(result.shards, worker < 2 ? 2u : 1u);
    for (const std::string& caption : captions(result.index)) all.insert(caption);
  }
  EXPECT_EQ(all, expected(0, 15));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(asked("/set/s" + std::to_string(i) + ".tar"), 1);

  FetchSettings idle = settings({server_.url("/set/s0.tsv")}, "other");
  idle.worker = 2;
  idle.workers = 3;
  const FetchResult nothing = fetch(idle);
  EXPECT_EQ(nothing.shards, 0u);
  EXPECT_EQ(nothing.failed, 0u);
  EXPECT_TRUE(nothing.index.empty());
}

TEST_F(FetchTest, TheSeedOrdersTheFiles) {
  serve_set(6);
  std::set<std::string> orders;
  for (const uint64_t seed : {1, 1, 2, 3}) {
    FetchSettings mine = settings({server_.url("/set/list.tsv")});
    mine.seed = seed;
    orders.insert(bytes_of(fetch(mine).index.string()));
  }
  EXPECT_EQ(orders.size(), 3u);
}

TEST_F(FetchTest, FailuresAreListedAndMadeGoodLater) {
  serve_set(3);
  const std::string missing = site_.at("/set/s1.tar");
  site_.erase("/set/s1.tar");
  site_["/set/s2.tsv"] = "no\tshard\n1\t2\n";
  const FetchResult result = fetch({server_.url("/set/list.tsv")});
  EXPECT_EQ(result.failed, 3u) << "the tar, the TSV without rows, the TSV that is none";
  EXPECT_EQ(result.shards, 1u);
  EXPECT_EQ(result.bad_rows, 3u);
  EXPECT_EQ(captions(result.index), expected(0, 3));
  const std::string list = bytes_of(result.failures.string());
  EXPECT_NE(list.find(server_.url("/set/s1.tar") + "\t"), std::string::npos) << list;
  EXPECT_NE(list.find("the server answers 404"), std::string::npos) << list;
  EXPECT_NE(list.find("there is no column \"\"tar\"\""), std::string::npos) << list;

  const Shard good = make_shard(folder_, "s2.tar", 6, 3);
  serve("/set/s1.tar", missing);
  serve("/set/s2.tsv", good.tsv);
  fs::remove(folder_.path("out/.fetch/lists/s2.tsv"));
  const FetchResult later = fetch({server_.url("/set/list.tsv")});
  EXPECT_EQ(later.failed, 0u);
  EXPECT_TRUE(later.failures.empty());
  EXPECT_FALSE(fs::exists(out("failures.tsv")));
  EXPECT_EQ(captions(later.index), expected(0, 9));
}

TEST_F(FetchTest, HostileListsReachNoLocalFile) {
  const std::string secret = folder_.write("secret.tar", make_shard(folder_, "x", 0, 1).tar);
  std::string tsv = "tar\tfile\tcaption\n";
  for (const std::string& name : {secret, "file://" + secret, std::string("gopher://h/a"), std::string("s3:///a"),
                                  std::string("http://user:pass@127.0.0.1/a.tar")}) {
    tsv += tsv_field(name) + "\t0.png\tx\n";
  }
  const Shard good = make_shard(folder_, "x", 0, 1);
  serve("/..%2f..%2fescape%00%0a.tar", good.tar);
  tsv += "..%2f..%2fescape%00%0a.tar\t0.png\tgood\n";
  serve("/list.tsv", tsv);
  const FetchResult result = fetch({server_.url("/list.tsv")});
  EXPECT_EQ(result.failed, 5u);
  EXPECT_EQ(result.rows, 1u);
  EXPECT_EQ(names(), (std::set<std::string>{"escape__.tar", "failures.tsv", "index.tsv", "list.tsv"}));
  EXPECT_EQ(captions(result.index), (std::multiset<std::string>{"good"}));
  EXPECT_NE(bytes_of(result.failures.string()).find("\nhttp://user:pass@127.0.0.1/a.tar\t"), std::string::npos)
      << "the list says which row is meant";

  FetchSettings publicly = settings({server_.url("/list.tsv")}, "public");
  publicly.http.allow_private = false;
  EXPECT_THROW(fetch(publicly), NetError);
}

TEST_F(FetchTest, StopsAndGoesOn) {
  serve_set(2);
  std::string big = site_.at("/set/s1.tar");
  big.resize(3'000'000, '\0');  // zeros end an archive
  serve("/set/s1.tar", big);
  slow_ = "/set/s1.tar";
  FetchSettings mine = settings({server_.url("/set/list.tsv")});
  std::thread stopper([&] {
    const fs::path part = out("s1.tar.part");
    std::error_code code;
    for (int i = 0; i < 500 && (!fs::exists(part) || fs::file_size(part, code) < 1'000'000); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    stop_ = true;
  });
  const FetchResult stopped = fetch(mine);
  stopper.join();
  EXPECT_TRUE(stopped.stopped);
  EXPECT_FALSE(fs::exists(out("s1.tar")));
  EXPECT_FALSE(fs::exists(out("index.tsv")));
  EXPECT_GE(fs::file_size(out("s1.tar.part")), 1'000'000u);
  stop_ = false;
  {
    const std::lock_guard lock(mutex_);
    slow_.clear();
  }
  const FetchResult result = fetch(mine);
  EXPECT_FALSE(result.stopped);
  EXPECT_EQ(captions(result.index), expected(0, 6));
  EXPECT_EQ(bytes_of(out("s1.tar")), big);
  EXPECT_FALSE(fs::exists(out("s1.tar.part")));
  bool resumed = false;
  for (const ServerRequest& request : server_.requests()) resumed = resumed || !request.header("range").empty();
  EXPECT_TRUE(resumed);
}

TEST_F(FetchTest, AFullDiskLosesNothing) {
  serve_set(1);
  std::string big = site_.at("/set/s0.tar");
  big.resize(2'000'000, '\0');
  serve("/set/s0.tar", big);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 1'000'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string text;
  try {
    fetch({server_.url("/set/list.tsv")});
  } catch (const Error& error) {
    text = error.what();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_NE(text.find("s0.tar.part: can't be written: File too large"), std::string::npos) << text;
  EXPECT_FALSE(fs::exists(out("s0.tar")));
  EXPECT_EQ(captions(fetch({server_.url("/set/list.tsv")}).index), expected(0, 3));
}

TEST_F(FetchTest, EndsWhenNothingCanBeReached) {
  std::string index = "filename\n";
  for (int i = 0; i < 500; ++i) index += "http://127.0.0.1:1/" + std::to_string(i) + ".tar\n";
  serve("/list.tsv", index);
  try {
    fetch({server_.url("/list.tsv")});
    ADD_FAILURE() << "500 files of a server that is gone";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the servers can't be reached: 32 files failed"), std::string::npos)
        << error.what();
  }
}

TEST_F(FetchTest, SpaceIsLookedAtBefore) {
  serve("/bucket?encoding-type=url&list-type=2&prefix=a",
        "<ListBucketResult><Contents><Key>a.tar</Key><Size>900000000000000000</Size></Contents></ListBucketResult>");
  FetchSettings mine = settings({"s3://bucket/a*"});
  mine.http.s3_endpoint = server_.url("");
  try {
    fetch(mine);
    ADD_FAILURE() << "900 PB fit";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("900000000.0 GB are to come, and "), std::string::npos) << error.what();
  }
  EXPECT_EQ(asked("/bucket/a.tar"), 0);
}

TEST_F(FetchTest, AListingTellsWhatHasChanged) {
  FetchSettings mine = settings({"s3://bucket/a*"});
  mine.http.s3_endpoint = server_.url("");
  const auto list = [&](const std::string& bytes, const std::string& tag) {
    serve("/bucket/a.tar", bytes);
    serve("/bucket?encoding-type=url&list-type=2&prefix=a", "<ListBucketResult><Contents><Key>a.tar</Key><Size>" +
                                                                std::to_string(bytes.size()) + "</Size><ETag>" + tag +
                                                                "</ETag></Contents></ListBucketResult>");
  };
  const std::string first = make_shard(folder_, "", 0, 2).tar, second = make_shard(folder_, "", 2, 2).tar;
  ASSERT_EQ(first.size(), second.size());
  const std::string tag = "tag" + std::to_string(first.size());  // as answer() sends it
  list(first, tag);
  EXPECT_EQ(fetch(mine).fetched, 1u);
  EXPECT_EQ(fetch(mine).kept, 1u);
  EXPECT_EQ(captions(out("index.tsv")), expected(0, 2));
  list(second, "another");
  EXPECT_EQ(fetch(mine).fetched, 1u);
  EXPECT_EQ(captions(out("index.tsv")), expected(2, 2));
}

TEST_F(FetchTest, WhatAKillHasLeftGoes) {
  serve_set(1);
  const std::string url = server_.url("/set/list.tsv");
  fetch({url});
  const char* ours[] = {"out/s0.tsv.tmp.12.3", "out/s0.tar.part.json.tmp.12.4", "out/index.tsv.tmp.12.5",
                        "out/.fetch/s0.tar.json.tmp.12.6"};
  for (const char* name : ours) folder_.write(name, "cut");
  folder_.write("out/others.tsv.tmp.12.7", "mine");
  fetch({url});
  for (const char* name : ours) EXPECT_TRUE(fs::exists(folder_.path(name))) << name << ": another process may write it";
  for (const char* name : {ours[0], ours[1], ours[2], ours[3], "out/others.tsv.tmp.12.7"}) {
    fs::last_write_time(folder_.path(name), fs::file_time_type::clock::now() - std::chrono::minutes(11));
  }
  fetch({url});
  for (const char* name : ours) EXPECT_FALSE(fs::exists(folder_.path(name))) << name;
  EXPECT_TRUE(fs::exists(folder_.path("out/others.tsv.tmp.12.7")));
}

TEST_F(FetchTest, PathsFileUrlsAndGlobs) {
  fs::create_directories(folder_.folder() / "in put");
  for (int i = 0; i < 3; ++i) {
    const Shard shard = make_shard(folder_, std::to_string(i) + ".tar", i, 1);
    folder_.write("in put/" + std::to_string(i) + ".tar", shard.tar);
    folder_.write("in put/" + std::to_string(i) + ".tsv", shard.tsv);
  }
  folder_.write("in put/index.tsv", "filename\n0.tsv\n");
  EXPECT_EQ(captions(fetch({folder_.path("in put/[0-1].tsv")}).index), expected(0, 2));
  EXPECT_EQ(captions(fetch(settings({folder_.path("in put/*")}, "b")).index), expected(0, 3))
      << "the index is left out";
  EXPECT_EQ(captions(fetch(settings({folder_.path("in put/index.tsv")}, "c")).index), expected(0, 1));
  const std::string url = "file://" + folder_.path("in%20put/2.tsv");
  EXPECT_EQ(captions(fetch(settings({url}, "d")).index), expected(2, 1));
  EXPECT_EQ(captions(fetch(settings({folder_.path("in put/?.tar")}, "e")).index), expected(0, 3));
  EXPECT_EQ(fetch(settings({folder_.path("in put/?.tar")}, "e")).kept, 3u);
  EXPECT_THROW(fetch({folder_.path("in put/*.gz")}), DataError);
  EXPECT_THROW(fetch({folder_.path("absent.tsv")}), DataError);
  EXPECT_THROW(fetch({"ftp://host/a.tsv"}), ConfigError);
  EXPECT_THROW(fetch(std::vector<std::string>{}), ConfigError);
}

TEST_F(FetchTest, ConfigsOfTheReferencesForm) {
  const std::string a =
      folder_.write("a.yaml", "train:\n  files:\n    - s3://b/x.*.tsv\n    - y\neval:\n  files: [z]\n");
  const std::string b = folder_.write("b.yaml", "train: {files: w}\n");
  EXPECT_EQ(fetch_config_sources(a, "train"), (std::vector<std::string>{"s3://b/x.*.tsv", "y"}));
  EXPECT_EQ(fetch_config_sources(a + ":" + b, "train"), (std::vector<std::string>{"s3://b/x.*.tsv", "y", "w"}));
  EXPECT_EQ(fetch_config_sources(a, "eval"), std::vector<std::string>{"z"});
  for (const std::string& bad : {std::string("train: {}\n"), std::string("train: {files: []}\n"),
                                 std::string("train: {files: [[a]]}\n"), std::string("other: {files: [a]}\n")}) {
    EXPECT_THROW(fetch_config_sources(folder_.write("bad.yaml", bad), "train"), ConfigError) << bad;
  }
  EXPECT_THROW(fetch_config_sources(":", "train"), ConfigError);
  EXPECT_THROW(fetch_config_sources(folder_.path("absent.yaml"), "train"), ConfigError);
}

TEST(FetchNames, ArePlain) {
  using ingest::plain_name;
  EXPECT_EQ(plain_name("a b.tar", ".tar"), "a b.tar");
  EXPECT_EQ(plain_name("a", ".tsv"), "a.tsv");
  EXPECT_EQ(plain_name("../..", ".tar"), "_.tar");
  EXPECT_EQ(plain_name("...", ".tar"), "__.tar");
  EXPECT_EQ(plain_name("../../a..b..tar", ".tar"), "a._b_.tar");
  EXPECT_EQ(plain_name("x\\y\"", ".tar"), "y_.tar");
  EXPECT_EQ(plain_name("", ".tar"), "shard.tar");
  EXPECT_EQ(plain_name(".hidden.tar", ".tar"), "hidden.tar");
  EXPECT_EQ(plain_name("-rf.tar", ".tar"), "_rf.tar");
  EXPECT_EQ(plain_name("a\tb\n\"c\x1b\xFF\xC2\x9B\xC3\xA9.tar", ".tar"), "a_b__c___\xC3\xA9.tar");
  EXPECT_LE(plain_name(std::string(5000, 'x'), ".tar").size(), 210u);
  EXPECT_EQ(ingest::last_part("s3://b/x/a%20b?c.tar"), "a%20b?c.tar");
  EXPECT_EQ(ingest::last_part("https://h/x/a%20b.tar?c/d"), "a b.tar");
  EXPECT_EQ(ingest::named_by("s3://b/x/l.tsv", "a b#.tar"), "s3://b/x/a b#.tar");
  EXPECT_EQ(ingest::named_by("https://h/x/l.tsv?t=/1", "a b#\xC3\xA9.tar"), "https://h/x/a%20b%23%C3%A9.tar");
  EXPECT_TRUE(ingest::glob_matches("p/images_00*.tsv", "p/images_0012.tsv"));
  EXPECT_FALSE(ingest::glob_matches("p/*.tsv", "p/q/a.tsv"));
  EXPECT_FALSE(ingest::glob_matches("*.tsv", "a.tsv.gz"));
  EXPECT_TRUE(ingest::glob_matches("a\\*[!b]?", "a*cd"));
}

// ---- the program's verb ----

int call(const std::vector<std::string>& words, const std::atomic<bool>& stop) {
  return run_download_dataset(parse_command_line(words, download_dataset_app_info()), stop);
}

TEST_F(FetchTest, TheVerb) {
  serve_set(4);
  const std::string url = server_.url("/set/list.tsv"), target = folder_.path("out");
  EXPECT_EQ(call({"fetch", "--index", url, "--output-dir", target, "--allow-private", "--worker_id", "1",
                  "--num_downloaders", "2"},
                 stop_),
            0);
  EXPECT_EQ(captions(out("index.1.tsv")).size(), 6u);
  EXPECT_EQ(call({"fetch", "--index", server_.url("/set/s0.tsv"), "--index", server_.url("/set/s1.tsv"),
                  server_.url("/set/s2.tsv"), "--output-dir", target, "--allow-private"},
                 stop_),
            0);
  EXPECT_EQ(captions(out("index.tsv")), expected(0, 9));
  site_.erase("/set/s3.tar");
  fs::remove(out("s3.tar"));
  EXPECT_EQ(call({"fetch", "--index", url, "--output-dir", target, "--allow-private"}, stop_), 4);
  stop_ = true;
  EXPECT_EQ(call({"fetch", "--index", url, "--output-dir", target, "--allow-private"}, stop_), 75);
  stop_ = false;
  const std::vector<std::vector<std::string>> wrong = {
      {"fetch", "--output-dir", target},
      {"fetch", "--index", url},
      {"fetch", "--index", url, "--output-dir", target, "--worker-id", "1"},
      {"fetch", "--index", url, "--output-dir", target, "--config", folder_.write("c.yaml", "train: {files: [a]}")},
      {"fetch", "--index", "s3://b/(", "--regex", "--output-dir", target},
      {"fetch", "--index", "s3://b/k", "--profile", "none", "--output-dir", target}};
  for (const auto& words : wrong) EXPECT_THROW(call(words, stop_), ConfigError) << words.size();
}

// ---- a real S3 ----

TEST_F(FetchTest, FromMoto) {
  const std::string python = net_test::moto_python();
  if (python.empty()) GTEST_SKIP() << "no Python with the packages moto and boto3 (scripts/setup.sh --dev makes one)";
  nlohmann::json spec = {{"signed", true}};
  const std::string prefix = "data sets/cc=12m:64*64+%/";
  for (int i = 0; i < 6; ++i) {
    const std::string name = "images_0" + std::to_string(i);
    const Shard shard = make_shard(folder_, name + " \xC3\xA9+%.tar", 3 * i, 3);
    const auto put = [&](const std::string& key, const std::string& bytes) {
      const std::string file = folder_.write("o" + std::to_string(spec["objects"].size()), bytes);
      spec["objects"].push_back({{"bucket", "mlx"}, {"key", prefix + key}, {"file", file}});
    };
    put(name + ".0.tsv", shard.tsv);
    put(name + " \xC3\xA9+%.tar", shard.tar);
  }
  spec["objects"].push_back({{"bucket", "mlx"}, {"key", prefix + "readme.txt"}, {"text", "x"}});
  const net_test::MotoServer moto(python, folder_.folder(), spec.dump());

  S3Options s3;
  s3.endpoint = moto.endpoint();
  s3.access_key_id = moto.id();
  s3.secret_access_key = moto.secret();
  FetchSettings mine = settings({"s3://mlx/data sets/cc=12m:64\\*64+%/*"});
  mine.http.allow_private = false;
  mine.http.s3 = std::make_shared<const S3Options>(s3);
  const FetchResult all = fetch(mine);
  EXPECT_EQ(all.failed, 0u);
  EXPECT_EQ(captions(all.index), expected(0, 18));
  EXPECT_EQ(fetch(mine).fetched, 0u);

  // As the reference names them, by two workers, the keys in the environment.
  const std::string config =
      folder_.write("cc12m.yaml",
                    "train:\n  files:\n    - s3://mlx/data sets/cc=12m:64\\*64\\+%/images_0[0-4].*.tsv\n"
                    "eval:\n  files:\n    - s3://mlx/data sets/cc=12m:64\\*64\\+%/images_05.0.tsv\n");
  ::setenv("AWS_ENDPOINT_URL", moto.endpoint().c_str(), 1);
  ::setenv("AWS_ACCESS_KEY_ID", moto.id().c_str(), 1);
  ::setenv("AWS_SECRET_ACCESS_KEY", moto.secret().c_str(), 1);
  const std::string target = folder_.path("train");
  std::multiset<std::string> both;
  for (const char* worker : {"0", "1"}) {
    EXPECT_EQ(
        call({"fetch", "--config", config, "--output-dir", target, "--worker_id", worker, "--num-workers", "2"}, stop_),
        0);
    for (const auto& text : captions(target + "/index." + worker + ".tsv")) both.insert(text);
  }
  EXPECT_EQ(both, expected(0, 15));
  EXPECT_EQ(call({"fetch", "--config", config, "--subset", "eval", "--output-dir", folder_.path("eval")}, stop_), 0);
  EXPECT_EQ(captions(folder_.path("eval/index.tsv")), expected(15, 3));

  ::setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
  EXPECT_THROW(call({"fetch", "--config", config, "--output-dir", target}, stop_), NetError);
  for (const char* name : {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}) ::unsetenv(name);
}

}  // namespace
}  // namespace mdm
