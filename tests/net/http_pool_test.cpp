// Many requests at a time, against a server of the test's own; and who they may connect to.
#include "mdm/net/http_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "net/tiny_server.h"
#include "support/internet.h"

namespace mdm {
namespace {

using net_test::http_answer;
using net_test::ServerReply;
using net_test::ServerRequest;
using net_test::TinyServer;
using Kind = NetError::Kind;

HttpPoolOptions quick_pool() {
  HttpPoolOptions options;
  options.http.allow_private = true;
  options.http.first_wait_seconds = 0.01;
  options.http.connect_seconds = 5;
  options.http.total_seconds = 20;
  options.http.tries = 3;
  options.transfers = 32;
  options.transfers_per_host = 8;
  return options;
}

struct Result {
  std::string body;
  std::optional<Kind> error;
  int status = 0;
  int64_t tries = 0;
};

// What became of all requests; fails when that takes a minute.
std::map<uint64_t, Result> finish(HttpPool& pool) {
  std::map<uint64_t, Result> results;
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (pool.unfinished() > 0) {
    if (std::chrono::steady_clock::now() > end) {
      ADD_FAILURE() << pool.unfinished() << " requests never end";
      break;
    }
    for (auto& finished : pool.wait(1)) {
      Result result;
      result.tries = finished.tries;
      result.body = finished.response.body;
      result.status = finished.response.status;
      try {
        if (finished.error) std::rethrow_exception(finished.error);
      } catch (const NetError& error) {
        result.error = error.kind();
        result.status = error.status();
      } catch (const Error& error) {
        result.body = error.what();
        result.error = Kind::kCancelled;  // what on_answer throws
      }
      EXPECT_TRUE(results.emplace(finished.id, result).second) << finished.id << " came twice";
    }
  }
  return results;
}

TEST(HttpPool, BringsEachOnceAndHeedsTheLimitPerHost) {
  std::atomic<int> active{0}, most{0};
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    const int now = ++active;
    for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    --active;
    return {http_answer("200 OK", "body of " + request.path)};
  });
  HttpPool pool(quick_pool());
  for (uint64_t i = 0; i < 200; ++i) pool.add(i, server.url("/" + std::to_string(i)));
  EXPECT_EQ(pool.unfinished(), 200u);
  const auto results = finish(pool);
  ASSERT_EQ(results.size(), 200u);
  for (const auto& [id, result] : results) EXPECT_EQ(result.body, "body of /" + std::to_string(id));
  EXPECT_LE(most, 8);
  EXPECT_GE(most, 2);
  EXPECT_EQ(server.requests().size(), 200u);
}

TEST(HttpPool, TriesAgainWhatMayPass) {
  std::mutex mutex;
  std::map<std::string, int> asked;
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    const std::lock_guard<std::mutex> lock(mutex);
    const int times = ++asked[request.path];
    if (request.path == "/flaky") return {http_answer(times < 3 ? "500 No" : "200 OK", "x")};
    if (request.path == "/dead") return {http_answer("503 No", "x")};
    if (request.path == "/gone") return {http_answer("404 No", "x")};
    return {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"};
  });
  HttpPool pool(quick_pool());
  uint64_t id = 0;
  for (const char* path : {"/flaky", "/dead", "/gone", "/cut"}) pool.add(id++, server.url(path));
  auto results = finish(pool);
  EXPECT_FALSE(results[0].error);
  EXPECT_EQ(results[0].tries, 3);
  EXPECT_EQ(results[1].error, Kind::kStatus);
  EXPECT_EQ(results[1].status, 503);
  EXPECT_EQ(results[2].status, 404);
  EXPECT_EQ(results[2].tries, 1);
  EXPECT_EQ(results[3].error, Kind::kConnection);
  const std::map<std::string, int> expected = {{"/flaky", 3}, {"/dead", 3}, {"/gone", 1}, {"/cut", 3}};
  EXPECT_EQ(asked, expected);
}

TEST(HttpPool, AHostThatAsksForPatienceIsLeftAloneByAll) {
  const auto begin = std::chrono::steady_clock::now();
  std::mutex mutex;
  std::vector<double> times;
  TinyServer server([&](const ServerRequest&) -> ServerReply {
    const std::lock_guard<std::mutex> lock(mutex);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    if (times.size() == 1) return {http_answer("429 Slowly", "", {"Retry-After: 1"})};
    return {http_answer("200 OK", "x")};
  });
  HttpPoolOptions options = quick_pool();
  options.transfers_per_host = 1;
  HttpPool pool(options);
  for (uint64_t i = 0; i < 5; ++i) pool.add(i, server.url("/"));
  for (const auto& [id, result] : finish(pool)) EXPECT_FALSE(result.error);
  ASSERT_EQ(times.size(), 6u);
  EXPECT_GE(times[1] - times[0], 0.9);
  EXPECT_LT(times[5] - times[1], 0.9);
}

TEST(HttpPool, FollowsRedirectsWithinLimits) {
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    if (request.path == "/a") return {http_answer("302 Found", "", {"Location: b"})};
    if (request.path == "/loop") return {http_answer("302 Found", "", {"Location: /loop"})};
    if (request.path == "/file") return {http_answer("302 Found", "", {"Location: file:///etc/passwd"})};
    return {http_answer("200 OK", request.path)};
  });
  HttpPool pool(quick_pool());
  pool.add(0, server.url("/a"));
  pool.add(1, server.url("/loop"));
  pool.add(2, server.url("/file"));
  pool.add(3, "ftp://127.0.0.1/x");
  pool.add(4, "nonsense");
  auto results = finish(pool);
  EXPECT_EQ(results[0].body, "/b");
  EXPECT_EQ(results[1].error, Kind::kRedirect);
  EXPECT_EQ(results[2].error, Kind::kRedirect);
  EXPECT_EQ(results[3].error, Kind::kUrl);
  EXPECT_EQ(results[4].error, Kind::kUrl);
}

TEST(HttpPool, AnAnswerCanBeTurnedDownBeforeItsBody) {
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    return {http_answer("200 OK", std::string(100, 'x'), {"X-Robots-Tag: " + request.path.substr(1)})};
  });
  HttpPoolOptions options = quick_pool();
  options.on_answer = [](const HttpResponse& response) {
    if (!response.robots.empty() && response.robots[0] == "noai") throw Error("not wanted");
  };
  HttpPool pool(options);
  pool.add(0, server.url("/noai"));
  pool.add(1, server.url("/all"));
  auto results = finish(pool);
  EXPECT_EQ(results[0].body, "not wanted");
  EXPECT_TRUE(results[0].error);
  EXPECT_EQ(results[1].body.size(), 100u);
}

TEST(HttpPool, BodiesTogetherStayWithinTheirLimit) {
  const std::string body(300000, 'b');
  TinyServer server([&](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", body)}; });
  HttpPoolOptions options = quick_pool();
  options.most_body_bytes = 400000;  // room for one and a bit: the others must rest, and get their turn
  HttpPool pool(options);
  for (uint64_t i = 0; i < 40; ++i) pool.add(i, server.url("/"));
  const auto results = finish(pool);
  ASSERT_EQ(results.size(), 40u);
  for (const auto& [id, result] : results) EXPECT_EQ(result.body, body);
  EXPECT_EQ(pool.bytes_received(), 40 * body.size());
}

TEST(HttpPool, TooLargeAndEndlessBodiesAreBrokenOff) {
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    if (request.path == "/said") return {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx"};
    return {"HTTP/1.1 200 OK\r\n\r\n" + std::string(100000, 'x')};
  });
  HttpPoolOptions options = quick_pool();
  options.http.max_bytes = 1000;
  HttpPool pool(options);
  pool.add(0, server.url("/said"));
  pool.add(1, server.url("/unsaid"));
  auto results = finish(pool);
  EXPECT_EQ(results[0].error, Kind::kSize);
  EXPECT_EQ(results[1].error, Kind::kSize);
}

TEST(HttpPool, CanBeWokenHeldAndLeft) {
  TinyServer server([&](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "x"), 1, 3000}; });
  HttpPool pool(quick_pool());
  for (uint64_t i = 0; i < 20; ++i) pool.add(i, server.url("/"));
  std::thread waker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    pool.wake();
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(pool.wait(30).empty());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  waker.join();
  pool.hold(true);  // what has begun goes on, nothing else begins; and leaving it all behind is no fault
}

TEST(HttpPool, RefusesPrivateAddressesWhateverTheyAreCalled) {
  TinyServer server([&](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "secret")}; });
  const std::string port = std::to_string(server.port());
  HttpPoolOptions options = quick_pool();
  options.http.allow_private = false;
  options.http.resolve = {"inside.test:" + port + ":127.0.0.1", "mapped.test:" + port + ":[::ffff:127.0.0.1]"};
  HttpPool pool(options);
  uint64_t id = 0;
  for (const char* host : {"127.0.0.1", "localhost", "inside.test", "mapped.test", "[::1]", "[::ffff:127.0.0.1]",
                           "2130706433", "0x7f.1", "169.254.169.254", "10.0.0.1"}) {
    pool.add(id++, "http://" + std::string(host) + ":" + port + "/");
  }
  for (const auto& [number, result] : finish(pool)) EXPECT_EQ(result.error, Kind::kRefused) << number;
  EXPECT_TRUE(server.requests().empty());
}

TEST(HttpPool, ANameThatResolvesAnewIsLookedAtAnew) {  // DNS rebinding
  TinyServer server([&](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "page")}; });
  const std::string url = "http://rebind.test:" + std::to_string(server.port()) + "/";
  {
    const std::lock_guard<std::mutex> lock(test_support::names_mutex);
    test_support::names["rebind.test"] = {test_support::kPublicAddress, "127.0.0.1"};
  }
  HttpPoolOptions options = quick_pool();
  options.http.allow_private = false;
  for (int turn = 0; turn < 3; ++turn) {  // each with a memory of names of its own
    HttpPool pool(options);
    pool.add(0, url);
    const Result result = finish(pool)[0];
    if (turn == 0) {
      EXPECT_EQ(result.body, "page");
    } else {
      EXPECT_EQ(result.error, Kind::kRefused);
    }
  }
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST(HttpPool, RedirectsFromThePublicToThePrivateAreRefused) {
  int port = 0;
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    if (request.path == "/inside") return {http_answer("200 OK", "secret")};
    const std::string host = request.path == "/by-name" ? "inside.test" : "127.0.0.1";
    return {http_answer("302 Found", "", {"Location: http://" + host + ":" + std::to_string(port) + "/inside"})};
  });
  port = server.port();
  {
    const std::lock_guard<std::mutex> lock(test_support::names_mutex);
    test_support::names["outside.test"] = {test_support::kPublicAddress};
    test_support::names["inside.test"] = {"127.0.0.1"};
  }
  HttpPoolOptions options = quick_pool();
  options.http.allow_private = false;
  HttpPool pool(options);
  const std::string outside = "http://outside.test:" + std::to_string(port);
  pool.add(0, outside + "/by-address");
  pool.add(1, outside + "/by-name");
  for (const auto& [id, result] : finish(pool)) EXPECT_EQ(result.error, Kind::kRefused) << id;
  for (const auto& request : server.requests()) EXPECT_NE(request.path, "/inside");
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST(HttpPool, NamesThatDoNotExistAreTheHostsFault) {
  {
    const std::lock_guard<std::mutex> lock(test_support::names_mutex);
    test_support::names["absent.test"] = {};
  }
  HttpPool pool(quick_pool());
  pool.add(0, "http://absent.test/");
  const Result result = finish(pool)[0];
  EXPECT_EQ(result.error, Kind::kHost);
  EXPECT_EQ(result.tries, 3);
}

}  // namespace
}  // namespace mdm
