// The HTTP client against a server of the test's own on the loopback: what it brings, and what it refuses.
#include "mdm/net/http_client.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "net/tiny_server.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using net_test::http_answer;
using net_test::serve_file;
using net_test::ServerReply;
using net_test::ServerRequest;
using net_test::TinyServer;
using Kind = NetError::Kind;

HttpOptions quick() {
  HttpOptions options;
  options.allow_private = true;
  options.first_wait_seconds = 0.01;
  options.connect_seconds = 5;
  options.total_seconds = 20;
  return options;
}

class HttpTest : public testing::Test {
 protected:
  HttpTest() {
    std::string name = (fs::path(::testing::TempDir()) / "mdm_net_XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~HttpTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  static std::string content(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  size_t files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

template <typename Function>
void expect_kind(Kind kind, const Function& run, int status = 0) {
  try {
    run();
    ADD_FAILURE() << "no error; expected kind " << static_cast<int>(kind);
  } catch (const NetError& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    if (status != 0) {
      EXPECT_EQ(error.status(), status);
    }
  }
}

std::string long_body(size_t size) {
  std::string body(size, '\0');
  for (size_t i = 0; i < size; ++i) body[i] = static_cast<char>(i * 2654435761u >> 13);
  return body;
}

TEST_F(HttpTest, GetsABodyAndWhatIsSaidOfIt) {
  TinyServer server([](const ServerRequest& request) -> ServerReply {
    return {http_answer("200 OK", "hello " + request.path,
                        {"ETag: \"x1\"", "Content-Type: text/plain", "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT"})};
  });
  HttpOptions options = quick();
  options.headers = {{"X-Token", "secret"}};
  HttpClient client(options);
  const HttpResponse response = client.get(server.url("/a?b=c#frag"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "hello /a?b=c");
  EXPECT_EQ(response.etag, "\"x1\"");
  EXPECT_EQ(response.content_type, "text/plain");
  EXPECT_EQ(response.total_bytes, 12u);
  EXPECT_EQ(server.requests()[0].header("x-token"), "secret");
  EXPECT_EQ(server.requests()[0].header("user-agent").rfind("libmdm/", 0), 0u);
}

TEST_F(HttpTest, GetsParts) {
  const std::string body = long_body(1000);
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    if (request.path == "/deaf") return {http_answer("200 OK", body)};
    if (request.path == "/other") {
      return {http_answer("206 Partial Content", body.substr(0, 10), {"Content-Range: bytes 0-9/1000"})};
    }
    if (request.path == "/less") {
      return {http_answer("206 Partial Content", body.substr(100, 5), {"Content-Range: bytes 100-104/1000"})};
    }
    return serve_file(request, body, "\"t\"");
  });
  HttpClient client(quick());
  const HttpResponse part = client.get(server.url("/file"), HttpRange{100, 50});
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, body.substr(100, 50));
  EXPECT_EQ(part.total_bytes, 1000u);
  EXPECT_EQ(client.get(server.url("/file"), HttpRange{990, 50}).body, body.substr(990));
  expect_kind(
      Kind::kStatus,
      [&] {
        client.get(server.url("/file"), HttpRange{1000, 1});
      },
      416);
  expect_kind(Kind::kStatus, [&] { client.get(server.url("/deaf"), HttpRange{0, 10}); });
  expect_kind(Kind::kStatus, [&] { client.get(server.url("/other"), HttpRange{100, 10}); });
  expect_kind(Kind::kSize, [&] { client.get(server.url("/less"), HttpRange{100, 10}); });
  expect_kind(Kind::kSize, [&] { client.get(server.url("/file"), HttpRange{100, 0}); });
}

TEST_F(HttpTest, FollowsRedirectsWithinLimits) {
  TinyServer second([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "there")}; });
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    const auto to = [](const std::string& where) {
      return ServerReply{http_answer("302 Found", "ignored", {"Location: " + where})};
    };
    if (request.path == "/a") return to("/b/c?d");
    if (request.path == "/b/c?d") return to("e");
    if (request.path == "/b/e") return {http_answer("200 OK", "found")};
    if (request.path == "/loop") return to("/loop");
    if (request.path == "/file") return to("file:///etc/passwd");
    if (request.path == "/ftp") return to("ftp://127.0.0.1/x");
    if (request.path == "/user") return to("http://user:pass@127.0.0.1/x");
    if (request.path == "/away") return to(second.url("/x"));
    return {http_answer("404 Not Found", "")};
  });
  HttpOptions options = quick();
  options.headers = {{"Authorization", "Bearer secret"}};
  HttpClient client(options);
  const HttpResponse response = client.get(server.url("/a"));
  EXPECT_EQ(response.body, "found");
  EXPECT_EQ(response.url, server.url("/b/e"));
  expect_kind(Kind::kRedirect, [&] { client.get(server.url("/loop")); });
  EXPECT_EQ(server.requests().size(), 3u + 6u) << "five redirects and no more";
  for (const char* path : {"/file", "/ftp", "/user"})
    expect_kind(Kind::kRedirect, [&] { client.get(server.url(path)); });
  EXPECT_EQ(client.get(server.url("/away")).body, "there");
  EXPECT_EQ(second.requests()[0].header("authorization"), "") << "another host gets no secrets";
  EXPECT_EQ(server.requests().back().header("authorization"), "Bearer secret");
}

TEST_F(HttpTest, TakesHttpUrlsOnly) {
  HttpClient client(quick());
  for (const char* url : {"", "file:///etc/passwd", "ftp://example.org/a", "example.org", "http://", "http:///a",
                          "http://user:pass@127.0.0.1/", "gopher://127.0.0.1", "http://127.0.0.1:99999/",
                          "http://127.0.0.1/a b", "http://[::1", "javascript:alert(1)"}) {
    expect_kind(Kind::kUrl, [&] { client.get(url); });
  }
  EXPECT_EQ(shown_url("https://user:secret@example.org/a/b?token=1#c"), "https://example.org/a/b");
  EXPECT_EQ(shown_url("http://h/\x1b[2J"), "http://h/\\x1b[2J");
  EXPECT_TRUE(is_url("Http://a"));
  EXPECT_TRUE(is_url("S3://bucket/a"));
  EXPECT_FALSE(is_url("httpx://a"));
  for (const char* url : {"s3://", "s3:///a", "s3://bucket", "s3://buc ket/a", "s3://user:pass@host/a", "s3://../a"}) {
    expect_kind(Kind::kUrl, [&] { client.get(url); });
  }
  EXPECT_EQ(shown_url("s3://bucket/a?b#c\n"), "s3://bucket/a?b#c\\x0a");
}

TEST_F(HttpTest, PrivateAddressesAreNotConnectedTo) {
  TinyServer server([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "secret")}; });
  HttpOptions options = quick();
  options.allow_private = false;
  HttpClient client(options);
  const std::string port = std::to_string(server.port());
  for (const std::string host : {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"}) {
    expect_kind(Kind::kRefused, [&] { client.get("http://" + host + ":" + port + "/"); });
  }
  expect_kind(Kind::kRefused, [&] { client.get("http://169.254.169.254/latest/meta-data"); });
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(HttpTest, ProxiesOfTheEnvironmentAreNotUsed) {
  TinyServer server([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "direct")}; });
  TinyServer proxy([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "by proxy")}; });
  ::setenv("http_proxy", proxy.url("").c_str(), 1);
  HttpOptions options = quick();
  EXPECT_EQ(HttpClient(options).get(server.url("/")).body, "direct");
  options.use_proxy = true;
  EXPECT_EQ(HttpClient(options).get(server.url("/")).body, "by proxy");
  ::unsetenv("http_proxy");
}

TEST_F(HttpTest, RetriesWhatMayPassAndNothingElse) {
  int calls = 0;
  std::string status;
  TinyServer server([&](const ServerRequest&) -> ServerReply {
    return ++calls < 3 ? ServerReply{http_answer(status, "no", {"Retry-After: 0"})}
                       : ServerReply{http_answer("200 OK", "yes")};
  });
  HttpClient client(quick());
  for (const char* passing : {"429 Too Many Requests", "500 Oops", "502 Bad", "503 Busy", "504 Slow", "408 Slow"}) {
    calls = 0;
    status = passing;
    EXPECT_EQ(client.get(server.url("/")).body, "yes");
    EXPECT_EQ(calls, 3);
  }
  for (const char* lasting : {"404 Not Found", "403 Forbidden", "401 No", "410 Gone", "501 Never", "304 Same"}) {
    calls = 0;
    status = lasting;
    expect_kind(
        Kind::kStatus, [&] { client.get(server.url("/")); }, std::atoi(lasting));
    EXPECT_EQ(calls, 1) << lasting;
  }
  HttpOptions once = quick();
  once.tries = 2;
  calls = 0;
  status = "503 Busy";
  expect_kind(
      Kind::kStatus, [&] { HttpClient(once).get(server.url("/")); }, 503);
  EXPECT_EQ(calls, 2);
}

TEST_F(HttpTest, BrokenAnswersAreErrors) {
  const std::string body = long_body(100);
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    if (request.path == "/short") return {"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + body};
    if (request.path == "/none") return {""};
    if (request.path == "/noise") return {"\x16\x03\x01 this is no HTTP\r\n\r\n"};
    if (request.path == "/headers") return {"HTTP/1.1 200 OK\r\nX: " + std::string(400'000, 'x') + "\r\n\r\n"};
    if (request.path == "/chunk")
      return {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nabc"};
    return {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + body};
  });
  HttpOptions options = quick();
  options.tries = 2;
  HttpClient client(options);
  for (const char* path : {"/short", "/none", "/noise", "/headers", "/chunk", "/negative"}) {
    EXPECT_THROW(client.get(server.url(path)), NetError) << path;
    EXPECT_THROW(client.download(server.url(path), folder_ / "file"), NetError) << path;
    EXPECT_FALSE(fs::exists(folder_ / "file"));
  }
  expect_kind(Kind::kConnection, [&] { client.get("http://127.0.0.1:1/"); });
}

TEST_F(HttpTest, SizesAndTimesAreLimited) {
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    if (request.path == "/endless") return {"HTTP/1.1 200 OK\r\n\r\n" + std::string(300'000, 'x')};
    if (request.path == "/slow") return {http_answer("200 OK", std::string(1000, 'x')), 200, 5000};
    return {http_answer("200 OK", std::string(300'000, 'x'))};
  });
  HttpOptions options = quick();
  options.max_bytes = 200'000;
  options.total_seconds = 0.5;
  options.tries = 1;
  HttpClient client(options);
  for (const char* path : {"/announced", "/endless"}) {
    expect_kind(Kind::kSize, [&] { client.get(server.url(path)); });
    expect_kind(Kind::kSize, [&] { client.download(server.url(path), folder_ / "file"); });
  }
  const auto start = std::chrono::steady_clock::now();
  expect_kind(Kind::kTimeout, [&] { client.get(server.url("/slow")); });
  options.total_seconds = 60;
  options.stall_seconds = 1;
  expect_kind(Kind::kTimeout, [&] { HttpClient(options).get(server.url("/slow")); });
  std::atomic<bool> cancel{true};
  options.cancel = &cancel;
  expect_kind(Kind::kCancelled, [&] { HttpClient(options).get(server.url("/slow")); });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_FALSE(fs::exists(folder_ / "file"));
}

TEST_F(HttpTest, DownloadsAreCompleteOrAbsent) {
  const std::string body = long_body(500'000);
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    if (request.path == "/empty") return {http_answer("200 OK", "")};
    if (request.path == "/gone") return {http_answer("404 Not Found", "an error page")};
    return serve_file(request, body, "\"v1\"");
  });
  HttpClient client(quick());
  const HttpResponse response = client.download(server.url("/file"), folder_ / "file");
  EXPECT_EQ(content(folder_ / "file"), body);
  EXPECT_EQ(response.total_bytes, body.size());
  EXPECT_EQ(files(), 1u) << "nothing else is left";
  client.download(server.url("/empty"), folder_ / "empty");
  EXPECT_EQ(fs::file_size(folder_ / "empty"), 0u);
  expect_kind(
      Kind::kStatus, [&] { client.download(server.url("/gone"), folder_ / "gone"); }, 404);
  EXPECT_FALSE(fs::exists(folder_ / "gone"));
  expect_kind(
      Kind::kStatus, [&] { client.download(server.url("/gone"), folder_ / "file"); }, 404);
  EXPECT_EQ(content(folder_ / "file"), body) << "a failure leaves what was there";
  EXPECT_THROW(client.download(server.url("/file"), folder_ / "no/such/folder"), Error);
}

// The server breaks each transfer off; the client goes on where it was.
TEST_F(HttpTest, CutTransfersAreResumed) {
  const std::string body = long_body(100'000);
  int call = 0;
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    ServerReply reply = serve_file(request, body, "\"v1\"");
    if (++call < 4) reply.bytes.resize(reply.bytes.size() - 1 - (reply.bytes.size() - 1) / 2);
    return reply;
  });
  HttpClient(quick()).download(server.url("/file"), folder_ / "file");
  EXPECT_EQ(content(folder_ / "file"), body);
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_EQ(requests[0].header("range"), "");
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(requests[i].header("if-range"), "\"v1\"");
    EXPECT_NE(requests[i].header("range"), "");
  }
}

TEST_F(HttpTest, ALaterCallGoesOnUnlessTheFileHasChanged) {
  std::string body = long_body(100'000), etag = "\"v1\"";
  bool cut = true;
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    ServerReply reply = serve_file(request, body, etag);
    if (cut) reply.bytes.resize(60'000);
    return reply;
  });
  HttpOptions options = quick();
  options.tries = 1;
  const auto broken = [&] { HttpClient(options).download(server.url("/file"), folder_ / "file"); };
  expect_kind(Kind::kConnection, broken);
  EXPECT_FALSE(fs::exists(folder_ / "file"));
  cut = false;
  broken();
  EXPECT_EQ(content(folder_ / "file"), body);
  EXPECT_NE(server.requests().back().header("range"), "");

  cut = true;
  expect_kind(Kind::kConnection, broken);
  cut = false;
  etag = "\"v2\"";
  body = long_body(90'000);
  std::reverse(body.begin(), body.end());
  broken();
  EXPECT_EQ(content(folder_ / "file"), body) << "the new file from its beginning";

  // A part of another URL is of no use.
  cut = true;
  expect_kind(Kind::kConnection, broken);
  cut = false;
  HttpClient(options).download(server.url("/other"), folder_ / "file");
  EXPECT_EQ(server.requests().back().header("range"), "");
  EXPECT_EQ(content(folder_ / "file"), body);
}

// Servers without a validator, that send another part than asked for, or that know less of the file than we do.
TEST_F(HttpTest, ResumingWithOddServers) {
  const std::string body = long_body(50'000);
  int call = 0;
  std::string kind;
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    ++call;
    const std::string whole = http_answer(
        "200 OK", body, kind == "bare" ? std::vector<std::string>() : std::vector<std::string>{"ETag: \"a\""});
    if (call == 1) return {whole.substr(0, 20'000)};
    if (kind == "wrong part" && !request.header("range").empty()) {
      return {
          http_answer("206 Partial Content", body.substr(7), {"ETag: \"a\"", "Content-Range: bytes 7-49999/50000"})};
    }
    if (kind == "refuses" && !request.header("range").empty()) return {http_answer("416 Range Not Satisfiable", "")};
    if (kind == "other tag" && !request.header("range").empty()) {
      ServerRequest unconditional = request;
      unconditional.headers.erase("if-range");
      return serve_file(unconditional, body, "\"b\"");
    }
    return {whole};
  });
  for (const char* name : {"bare", "wrong part", "refuses", "other tag"}) {
    kind = name;
    call = 0;
    fs::remove(folder_ / "file");
    HttpClient(quick()).download(server.url("/file"), folder_ / "file");
    EXPECT_TRUE(content(folder_ / "file") == body) << name;
  }
}

TEST_F(HttpTest, APlantedLinkIsNotWrittenThrough) {
  TinyServer server([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "new")}; });
  std::ofstream(folder_ / "precious") << "old";
  fs::create_symlink(folder_ / "precious", folder_ / "file.part");
  EXPECT_THROW(HttpClient(quick()).download(server.url("/"), folder_ / "file"), Error);
  EXPECT_EQ(content(folder_ / "precious"), "old");
}

}  // namespace
}  // namespace mdm
