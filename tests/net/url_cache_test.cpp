// Files by URL: fetched once, by one process, complete or absent.
#include "mdm/net/url_cache.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "mdm/core/log.h"
#include "net/tiny_server.h"
#include "support/file_locks.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using net_test::http_answer;
using net_test::ServerReply;
using net_test::ServerRequest;
using net_test::TinyServer;

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

int times(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

class UrlCacheTest : public testing::Test {
 protected:
  UrlCacheTest()
      : server_([](const ServerRequest& request) -> ServerReply {
          if (request.path.rfind("/slow", 0) == 0) return {http_answer("200 OK", "slow content"), 30, 300};
          if (request.path == "/gone") return {http_answer("404 Not Found", "")};
          return {http_answer("200 OK", "content of " + request.path)};
        }) {
    std::string name = (fs::path(::testing::TempDir()) / "mdm_urls_XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    options_.allow_private = true;
    options_.first_wait_seconds = 0.01;
  }
  ~UrlCacheTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  UrlCache cache() const { return UrlCache(folder_ / "cache", options_); }

  TinyServer server_;
  fs::path folder_;
  HttpOptions options_;
};

TEST_F(UrlCacheTest, FetchesOnce) {
  const std::string url = server_.url("/shards/00000.tar?v=1");
  const fs::path file = cache().fetch(url);
  EXPECT_EQ(text_of(file), "content of /shards/00000.tar?v=1");
  EXPECT_EQ(file.extension(), ".tar");
  EXPECT_EQ(file.parent_path(), folder_ / "cache");
  EXPECT_EQ(fs::status(folder_ / "cache").permissions(), fs::perms::owner_all);
  EXPECT_EQ(cache().fetch(url), file);
  EXPECT_EQ(server_.requests().size(), 1u);
  EXPECT_NE(cache().fetch(server_.url("/shards/00000.tar?v=2")), file);
  cache().forget(url);
  EXPECT_FALSE(fs::exists(file));
  EXPECT_EQ(cache().fetch(url), file);
  EXPECT_EQ(server_.requests().size(), 3u);
}

TEST_F(UrlCacheTest, AFileOfAnotherSizeIsFetchedAgain) {
  const std::string url = server_.url("/a.tsv");
  const fs::path file = cache().fetch(url);
  for (const char* other : {"", "cut", "content of /a.tsv and more"}) {
    std::ofstream(file, std::ios::trunc) << other;
    EXPECT_EQ(text_of(cache().fetch(url)), "content of /a.tsv");
  }
  fs::remove(file);
  EXPECT_EQ(text_of(cache().fetch(url)), "content of /a.tsv");
  for (const auto& entry : fs::directory_iterator(folder_ / "cache")) {
    if (entry.path().extension() == ".json") std::ofstream(entry.path(), std::ios::trunc) << "{\"url\": 3";
  }
  EXPECT_EQ(text_of(cache().fetch(url)), "content of /a.tsv");
  EXPECT_EQ(server_.requests().size(), 6u);
}

TEST_F(UrlCacheTest, NamesAreTame) {
  for (const char* url : {"http://h/../../etc/passwd", "http://h/a.%2e%2e", "http://h/.tar.verylongending12345",
                          "http://h/", "http://h/a.t\x01r", "http://h/x.tar/"}) {
    const fs::path path = cache().path_of(url);
    EXPECT_EQ(path.parent_path(), folder_ / "cache") << url;
    EXPECT_EQ(path.filename().string().find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz."), std::string::npos);
  }
}

TEST_F(UrlCacheTest, FailuresLeaveNothingBehind) {
  try {
    cache().fetch(server_.url("/gone"));
    FAIL();
  } catch (const NetError& error) {
    EXPECT_EQ(error.status(), 404);
  }
  EXPECT_FALSE(fs::exists(cache().path_of(server_.url("/gone"))));
  UrlCache strict(folder_ / "cache");
  EXPECT_THROW(strict.fetch(server_.url("/private")), NetError);
  std::ofstream(folder_ / "file") << "";
  EXPECT_THROW(UrlCache(folder_ / "file", options_).fetch(server_.url("/a")), Error);
}

TEST_F(UrlCacheTest, SeveralAskForTheSameAndOneDownloads) {
  std::vector<std::thread> threads;
  std::vector<std::string> got(6);
  for (size_t i = 0; i < got.size(); ++i) {
    threads.emplace_back([&, i] { got[i] = text_of(cache().fetch(server_.url("/slow.tar"))); });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& text : got) EXPECT_EQ(text, "slow content");
  EXPECT_EQ(server_.requests().size(), 1u);
}

TEST_F(UrlCacheTest, SaysOnceWhatItLoads) {
  set_log_level(LogLevel::kInfo);
  const std::string url = server_.url("/a.tsv");
  testing::internal::CaptureStderr();
  cache().fetch(url + "?token=secret");
  cache().fetch(url + "?token=secret");
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(times(log, "loaded " + url + ": 30 bytes"), 1) << log;
  EXPECT_EQ(times(log, "loaded"), 1) << log;
  EXPECT_EQ(times(log, "secret"), 0) << log;
}

TEST_F(UrlCacheTest, FileSystemsWithoutLocks) {
  for (const int code : {ENOSYS, ENOTSUP, ENOLCK}) {
    UrlCache urls = cache();
    testing::internal::CaptureStderr();
    test_support::lock_error = code;
    for (const char* path : {"/a", "/b"}) {
      const std::string named = path + std::to_string(code);
      EXPECT_EQ(text_of(urls.fetch(server_.url(named))), "content of " + named);
    }
    test_support::lock_error = 0;
    EXPECT_EQ(times(testing::internal::GetCapturedStderr(), "has no locks"), 1);
  }
  test_support::lock_error = EIO;
  EXPECT_THROW(cache().fetch(server_.url("/c")), Error);
  test_support::lock_error = 0;
}

// Another process finishes the same file between our opening it and our lock: it must stay as it is.
TEST_F(UrlCacheTest, AFileThatWasFinishedMeanwhileIsNotWrittenTo) {
  const fs::path target = folder_ / "x", part = folder_ / "x.part", kept = folder_ / "kept";
  test_support::before_lock = [&] {
    std::ofstream(part, std::ios::trunc) << "whole";
    fs::create_hard_link(part, kept);
    fs::rename(part, target);
  };
  HttpClient(options_).download(server_.url("/x"), target);
  EXPECT_FALSE(test_support::before_lock);
  EXPECT_EQ(text_of(kept), "whole");
  EXPECT_EQ(text_of(target), "content of /x");
}

TEST(CacheFolder, IsTheUsers) {
  const std::vector<std::string> names = {"MDM_HOME", "XDG_CACHE_HOME", "HOME"};
  std::vector<std::pair<std::string, std::string>> saved;
  for (const auto& name : names) {
    if (const char* value = std::getenv(name.c_str())) saved.emplace_back(name, value);
    ::unsetenv(name.c_str());
  }
  EXPECT_THROW(default_cache_folder(), ConfigError);
  UrlCache homeless;  // of no use, but no fault either for those who have no URL
  EXPECT_THROW(homeless.fetch("http://127.0.0.1:1/a"), ConfigError);
  ::setenv("HOME", "/home/me", 1);
  EXPECT_EQ(default_cache_folder(), "/home/me/.cache/mdm");
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(default_cache_folder(), "/home/me/.cache/mdm");
  ::setenv("XDG_CACHE_HOME", "/c", 1);
  EXPECT_EQ(default_cache_folder(), "/c/mdm");
  ::setenv("MDM_HOME", "/m", 1);
  EXPECT_EQ(default_cache_folder(), "/m/cache");
  for (const auto& name : names) ::unsetenv(name.c_str());
  for (const auto& [name, value] : saved) ::setenv(name.c_str(), value.c_str(), 1);
}

}  // namespace
}  // namespace mdm
