// Hosts, origins, the key, content types and rates.
#include "serving/access.h"

#include <gtest/gtest.h>

namespace mdm::serving {
namespace {

HttpRequest head(const std::string& method, const std::string& path,
                 std::vector<std::pair<std::string, std::string>> headers = {}) {
  HttpRequest request;
  request.method = method;
  request.path = path;
  request.address = "127.0.0.1";
  request.headers = std::move(headers);
  bool host = false;
  for (const auto& [name, value] : request.headers) host = host || name == "host";
  if (!host) request.headers.emplace_back("host", "127.0.0.1:7860");
  return request;
}

int status(Access& access, const HttpRequest& request) {
  const auto refused = access.check(request);
  return refused ? refused->status : 200;
}

TEST(Access, OnlyOwnHostsAreAnswered) {
  Access access({});
  for (const char* host : {"127.0.0.1:7860", "localhost", "localhost:", "LOCALHOST:1", "[::1]:7860", "127.3.2.1"}) {
    EXPECT_EQ(status(access, head("GET", "/", {{"host", host}})), 200) << host;
  }
  for (const char* host : {"evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example",
                           "192.168.1.5", "0x7f.1", "[::2]", "[", ":7860", "localhost:80@evil.example",
                           "[::1]evil.example", "localhost:80:90", "[::1]:x"}) {
    EXPECT_EQ(status(access, head("GET", "/", {{"host", host}})), 421) << host;
  }
  EXPECT_EQ(status(access, head("GET", "/", {{"host", ""}})), 400);
}

TEST(Access, NamedHostsAndAddressesOfAnOpenServer) {
  AccessOptions options;
  options.host = "0.0.0.0";
  options.allowed_hosts = {"Pictures.example.org"};
  options.key = "0123456789abcdef";
  options.open_paths = {"/"};
  Access access(options);
  EXPECT_EQ(status(access, head("GET", "/", {{"host", "pictures.example.org"}})), 200);
  EXPECT_EQ(status(access, head("GET", "/", {{"host", "192.168.1.5:7860"}})), 200);
  EXPECT_EQ(status(access, head("GET", "/", {{"host", "evil.example"}})), 421);
}

TEST(Access, PagesOfOtherSitesAreRefused) {
  Access access({});
  const auto with_origin = [&](const std::string& method, const char* origin) {
    return status(access, head(method, "/mdm/v1/jobs", {{"origin", origin}, {"content-type", "application/json"}}));
  };
  EXPECT_EQ(with_origin("POST", "http://127.0.0.1:7860"), 200);
  EXPECT_EQ(with_origin("POST", "https://127.0.0.1:7860"), 200);  // a proxy's TLS
  for (const char* origin : {"http://evil.example", "null", "http://127.0.0.1:7861",
                             "http://127.0.0.1:7860.evil.example", "http://localhost:7860", "evil"}) {
    EXPECT_EQ(with_origin("POST", origin), 403) << origin;
    EXPECT_EQ(with_origin("GET", origin), 403) << origin;
  }
  EXPECT_EQ(status(access, head("POST", "/mdm/v1/jobs",
                                {{"sec-fetch-site", "cross-site"}, {"content-type", "application/json"}})),
            403);
  EXPECT_EQ(status(access, head("DELETE", "/mdm/v1/jobs/1", {{"sec-fetch-site", "same-site"}})), 403);
  EXPECT_EQ(status(access, head("POST", "/mdm/v1/jobs",
                                {{"sec-fetch-site", "same-origin"}, {"content-type", "application/json"}})),
            200);
}

// A form of another site can send these types without being asked; ours is none of them.
TEST(Access, PostsMustBeJson) {
  Access access({});
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""}) {
    EXPECT_EQ(status(access, head("POST", "/mdm/v1/jobs", {{"content-type", type}, {"content-length", "2"}})), 415)
        << type;
  }
  EXPECT_EQ(status(access, head("POST", "/mdm/v1/jobs", {{"content-type", "application/json ; charset=utf-8"}})), 200);
  EXPECT_EQ(status(access, head("POST", "/mdm/v1/jobs/1/cancel", {{"content-length", "0"}})), 200);
}

TEST(Access, WantsTheKey) {
  AccessOptions options;
  options.key = "0123456789abcdef";
  options.open_paths = {"/", "/page.css", "/healthz", "/openapi.json", "/mdm/v1/session"};
  Access access(options);
  for (const char* path : {"/", "/page.css", "/healthz", "/openapi.json", "/mdm/v1/session"}) {
    EXPECT_EQ(status(access, head("GET", path)), 200) << path;
  }
  for (const char* path :
       {"/mdm/v1/models", "/metrics", "/v1/models", "/sdapi/v1/samplers", "/mdm/v1/jobs/x/events", "/new/api", "//"}) {
    EXPECT_EQ(status(access, head("GET", path)), 401) << path;
    EXPECT_EQ(status(access, head("GET", path, {{"authorization", "Bearer 0123456789abcdef"}})), 200) << path;
    EXPECT_EQ(status(access, head("GET", path, {{"authorization", "bearer 0123456789abcdef"}})), 200) << path;
    for (const char* wrong :
         {"Bearer 0123456789abcdeX", "Bearer ", "Bearer", "0123456789abcdef", "Basic 0123456789abcdef"}) {
      EXPECT_EQ(status(access, head("GET", path, {{"authorization", wrong}})), 401) << wrong;
    }
  }
}

TEST(Access, ACookieStandsForTheKey) {
  AccessOptions options;
  options.key = "0123456789abcdef";
  Access access(options);
  EXPECT_FALSE(access.sign_in("wrong"));
  EXPECT_FALSE(access.sign_in(""));
  const auto cookie = access.sign_in("0123456789abcdef");
  ASSERT_TRUE(cookie);
  EXPECT_NE(cookie->find("HttpOnly"), std::string::npos);
  EXPECT_NE(cookie->find("SameSite=Strict"), std::string::npos);
  EXPECT_EQ(cookie->find("0123456789abcdef"), std::string::npos);
  const std::string pair = cookie->substr(0, cookie->find(';'));
  const auto with = [&](const std::string& value) { return head("GET", "/mdm/v1/models", {{"cookie", value}}); };
  EXPECT_EQ(status(access, with(pair)), 200);
  EXPECT_EQ(status(access, with("a=b; " + pair + "; c=d")), 200);
  EXPECT_EQ(status(access, with("a=b;" + pair)), 200);
  EXPECT_EQ(status(access, with("x" + pair)), 401);
  EXPECT_EQ(status(access, with("mdm_session=")), 401);
  EXPECT_EQ(status(access, with(pair + "0")), 401);
  EXPECT_EQ(status(access, with(";;; ;=; ")), 401);
  access.sign_out(with(pair));
  EXPECT_EQ(status(access, with(pair)), 401);
}

TEST(Access, LimitsPostsOfEachClient) {
  AccessOptions options;
  options.posts_per_minute = 5;
  Access access(options);
  HttpRequest post = head("POST", "/mdm/v1/jobs", {{"content-type", "application/json"}});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(status(access, post), 200);
  const auto refused = access.check(post);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->headers.back().first, "Retry-After");
  EXPECT_EQ(status(access, head("GET", "/mdm/v1/jobs/1")), 200);
  HttpRequest cancel = head("DELETE", "/mdm/v1/jobs/1");
  EXPECT_EQ(status(access, cancel), 200) << "who asked too much may still cancel";
  post.address = "10.0.0.7";
  EXPECT_EQ(status(access, post), 200);
}

TEST(Access, LimitsWrongKeys) {
  AccessOptions options;
  options.key = "0123456789abcdef";
  options.posts_per_minute = 5;
  Access access(options);
  const HttpRequest wrong = head("GET", "/mdm/v1/models", {{"authorization", "Bearer wrong"}});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(status(access, wrong), 401);
  EXPECT_EQ(status(access, wrong), 429);
  EXPECT_EQ(status(access, head("GET", "/mdm/v1/models", {{"authorization", "Bearer 0123456789abcdef"}})), 200);
}

TEST(Access, KnowsTheLoopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.9.9.9", "::1"}) EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"0.0.0.0", "::", "127.evil.example", "10.0.0.1", "", "example.org"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

}  // namespace
}  // namespace mdm::serving
