// s3:// URLs against a server of the test's own: what is sent, to whom, and what becomes of the answers.
#include "mdm/net/s3.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "mdm/core/digest.h"
#include "mdm/core/log.h"
#include "mdm/net/http_client.h"
#include "mdm/net/url_cache.h"
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

constexpr char kSecret[] = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
constexpr char kToken[] = "FwoGZXIvYXdzEXAMPLETOKEN//////////==";
constexpr char kAwsVariables[][40] = {"AWS_ENDPOINT_URL",
                                      "AWS_ENDPOINT_URL_S3",
                                      "AWS_ACCESS_KEY_ID",
                                      "AWS_SECRET_ACCESS_KEY",
                                      "AWS_SESSION_TOKEN",
                                      "AWS_REGION",
                                      "AWS_DEFAULT_REGION",
                                      "AWS_PROFILE",
                                      "AWS_SHARED_CREDENTIALS_FILE",
                                      "AWS_CONFIG_FILE",
                                      "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"};

std::string md5_tag(const std::string& body) {
  Digest digest(Digest::Kind::kMd5);
  digest.add(body);
  return '"' + digest.finish_hex() + '"';
}

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// A home of its own and no AWS variables.
class S3Test : public testing::Test {
 protected:
  S3Test() {
    std::string name = (fs::path(::testing::TempDir()) / "mdm_s3_XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    for (const char* variable : kAwsVariables) ::unsetenv(variable);
    const char* home = std::getenv("HOME");
    home_ = home == nullptr ? "" : home;
    ::setenv("HOME", folder_.c_str(), 1);
  }
  ~S3Test() override {
    for (const char* variable : kAwsVariables) ::unsetenv(variable);
    ::setenv("HOME", home_.c_str(), 1);
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  static S3Options keys(const std::string& endpoint) {
    S3Options options;
    options.endpoint = endpoint;
    options.access_key_id = "AKIAIOSFODNN7EXAMPLE";
    options.secret_access_key = kSecret;
    options.session_token = kToken;
    return options;
  }
  static HttpOptions quick(const S3Options& s3) {
    HttpOptions options;
    options.first_wait_seconds = 0.01;
    options.total_seconds = 20;
    options.s3 = std::make_shared<const S3Options>(s3);
    return options;
  }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }

  fs::path folder_;
  std::string home_;
};

template <typename Function>
std::string text_of_error(Kind kind, const Function& run) {
  try {
    run();
    ADD_FAILURE() << "no error; expected kind " << static_cast<int>(kind);
    return "";
  } catch (const NetError& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    EXPECT_EQ(std::string(error.what()).find(kSecret), std::string::npos);
    EXPECT_EQ(std::string(error.what()).find(kToken), std::string::npos);
    return error.what();
  }
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// ---- what is sent ----

TEST_F(S3Test, SignsAndEncodesEachKeyOnce) {
  TinyServer server([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "x")}; });
  HttpOptions options = quick(keys(server.url("")));
  options.headers = {{"X-Amz-Request-Payer", "requester"}, {"X-Other", "1"}, {"Authorization", "Bearer other"}};
  HttpClient client(options);
  const std::pair<const char*, const char*> cases[] = {
      {"a b=c:d*e+f%g.tar", "/bucket/a%20b%3Dc%3Ad%2Ae%2Bf%25g.tar"},
      {"x//y/../z/./w", "/bucket/x//y/../z/./w"},
      {"/begins", "/bucket//begins"},
      {"ends/", "/bucket/ends/"},
      {"\xC3\xA9\xF0\x9F\x98\x80", "/bucket/%C3%A9%F0%9F%98%80"},
      {"q?a=b#c&d", "/bucket/q%3Fa%3Db%23c%26d"},
      {"%2F", "/bucket/%252F"},
      {"\xFF\n\"<>\\^`{|}", "/bucket/%FF%0A%22%3C%3E%5C%5E%60%7B%7C%7D"},
  };
  for (const auto& [key, path] : cases) {
    EXPECT_EQ(client.get(std::string("s3://bucket/") + key).body, "x");
    const ServerRequest sent = server.requests().back();
    EXPECT_EQ(sent.path, path);
    EXPECT_EQ(sent.header("host"), "127.0.0.1:" + std::to_string(server.port()));
    EXPECT_EQ(sent.header("x-amz-security-token"), kToken);
    EXPECT_EQ(sent.header("x-other"), "1");
    const std::string signed_headers =
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-request-payer;x-amz-security-token,";
    EXPECT_TRUE(has(sent.header("authorization"), "/us-east-1/s3/aws4_request, " + signed_headers))
        << sent.header("authorization");
  }
}

TEST_F(S3Test, WithoutCredentialsNothingIsSigned) {
  TinyServer server([](const ServerRequest& request) -> ServerReply {
    return {request.path == "/b/private" ? http_answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>")
                                         : http_answer("200 OK", "x")};
  });
  ::setenv("AWS_ENDPOINT_URL", server.url("").c_str(), 1);
  HttpOptions options;
  HttpClient client(options);
  client.get("s3://b/k");
  for (const char* header : {"authorization", "x-amz-date", "x-amz-security-token"}) {
    EXPECT_EQ(server.requests().back().header(header), "") << header;
  }
  const std::string text = text_of_error(Kind::kStatus, [&] { client.get("s3://b/private"); });
  EXPECT_TRUE(has(text, "s3://b/private: the server answers 403: AccessDenied; no credentials were found")) << text;
  S3Options none = keys(server.url(""));
  none.anonymous = true;
  HttpClient(quick(none)).get("s3://b/k");
  EXPECT_EQ(server.requests().back().header("authorization"), "");
  EXPECT_EQ(server.requests().back().header("x-amz-security-token"), "");
}

TEST_F(S3Test, OnlyTheEndpointMayBePrivate) {
  TinyServer other([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "inside")}; });
  TinyServer server([&](const ServerRequest&) -> ServerReply {
    return {http_answer("307 Temporary Redirect", "", {"Location: " + other.url("/x")})};
  });
  HttpOptions options = quick(keys(server.url("")));
  HttpClient client(options);
  text_of_error(Kind::kRefused, [&] { client.get("s3://bucket/a"); });
  EXPECT_TRUE(other.requests().empty());
  text_of_error(Kind::kRefused, [&] { client.get(server.url("/a")); });

  options.allow_private = true;
  options.headers = {{"X-Token", "mine"}};
  EXPECT_EQ(HttpClient(options).get("s3://bucket/a", std::nullopt).body, "inside");
  ASSERT_EQ(other.requests().size(), 1u);
  for (const char* header : {"authorization", "x-amz-security-token", "x-amz-date", "x-token"}) {
    EXPECT_EQ(other.requests()[0].header(header), "") << header << " was sent to another origin";
  }
}

TEST_F(S3Test, SecretsAreNotShown) {
  int what = 0;
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    const std::string token = request.header("x-amz-security-token");
    if (what == 0) {
      return {http_answer("400 Bad Request", "<Error><Code>InvalidToken</Code><Message>" + std::string(280, 'x') +
                                                 token + "</Message></Error>")};
    }
    if (what == 1) return {http_answer("302 Found", "", {"Location: https://127.0.0.1:1/" + token})};
    return {http_answer("302 Found", "", {"Location: ftp://" + token})};
  });
  HttpClient client(quick(keys(server.url(""))));
  const std::string text = text_of_error(Kind::kStatus, [&] { client.get("s3://bucket/a"); });
  EXPECT_TRUE(has(text, "InvalidToken: xxx")) << text;
  EXPECT_FALSE(has(text, std::string(kToken).substr(0, 8))) << text;
  for (what = 1; what < 3; ++what) text_of_error(Kind::kRedirect, [&] { client.get("s3://bucket/a"); });

  S3Options bad = keys(server.url(""));
  bad.session_token = "one\r\nX-Injected: two";
  try {
    HttpClient(quick(bad)).get("s3://bucket/a");
    ADD_FAILURE() << "a token with a line end";
  } catch (const ConfigError& error) {
    EXPECT_FALSE(has(error.what(), "Injected")) << error.what();
  }
}

// ---- regions ----

TEST_F(S3Test, AnotherRegionIsAskedFor) {
  TinyServer server([](const ServerRequest& request) -> ServerReply {
    const bool right = has(request.header("authorization"), "/eu-west-3/s3/aws4_request");
    if (right) return {http_answer("200 OK", "there")};
    if (request.path == "/body/k") {
      return {http_answer("400 Bad Request",
                          "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message>"
                          "<Region>eu-west-3</Region></Error>")};
    }
    if (request.path == "/hostile/k") {
      return {http_answer("301 Moved", "", {"x-amz-bucket-region: evil.example.org/"})};
    }
    if (request.path == "/endless/k") {
      return {
          http_answer("301 Moved", "", {"x-amz-bucket-region: r" + std::string(request.header("x-amz-date"), 9, 6)})};
    }
    return {http_answer("301 Moved", "", {"x-amz-bucket-region: eu-west-3"})};
  });
  HttpClient client(quick(keys(server.url(""))));
  EXPECT_EQ(client.get("s3://header/k").body, "there");
  EXPECT_EQ(server.requests().size(), 2u);
  EXPECT_EQ(client.get("s3://header/other").body, "there");
  EXPECT_EQ(server.requests().size(), 3u) << "a bucket's region is remembered";
  EXPECT_EQ(client.get("s3://body/k").body, "there");
  text_of_error(Kind::kStatus, [&] { client.get("s3://hostile/k"); });
  const size_t before = server.requests().size();
  text_of_error(Kind::kStatus, [&] { client.get("s3://endless/k"); });
  EXPECT_LE(server.requests().size(), before + 2);
}

// Amazon's own hosts, which the resolver's override leads to this machine: the connection is refused there, so that
// the error names the host.
TEST_F(S3Test, AmazonsHosts) {
  const auto host_of = [&](S3Options s3, const std::string& bucket, const std::string& host) {
    HttpOptions options = quick(s3);
    options.tries = 1;
    options.resolve = {host + ":443:127.0.0.1"};
    HttpClient client(options);
    // Only a name that the override knows leads to an address, a private one.
    return text_of_error(Kind::kRefused, [&] { client.get("s3://" + bucket + "/k"); });
  };
  S3Options s3 = keys("");
  host_of(s3, "bucket", "bucket.s3.us-east-1.amazonaws.com");
  host_of(s3, "with.dots", "s3.us-east-1.amazonaws.com");
  s3.region = "cn-north-1";
  host_of(s3, "bucket", "bucket.s3.cn-north-1.amazonaws.com.cn");
  s3.path_style = true;
  host_of(s3, "bucket", "s3.cn-north-1.amazonaws.com.cn");
}

TEST_F(S3Test, EndpointsAndStyles) {
  TinyServer server([](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "x")}; });
  const std::string port = std::to_string(server.port());
  S3Options s3 = keys("http://LocalHost:" + port + "/store//");
  HttpClient(quick(s3)).get("s3://bucket/k");
  EXPECT_EQ(server.requests().back().path, "/store/bucket/k");
  EXPECT_EQ(server.requests().back().header("host"), "localhost:" + port);
  s3 = keys("http://store.test:" + port);
  s3.path_style = false;
  HttpOptions options = quick(s3);
  options.resolve = {"bucket.store.test:" + port + ":127.0.0.1"};
  HttpClient(options).get("s3://bucket/k");
  EXPECT_EQ(server.requests().back().path, "/k");
  EXPECT_EQ(server.requests().back().header("host"), "bucket.store.test:" + port);
  for (const char* bad : {"localhost:9000", "ftp://h", "http://user:pass@h", "http://h/?x", "http://", "s3://b"}) {
    EXPECT_THROW(HttpClient(quick(keys(bad))).get("s3://bucket/k"), ConfigError) << bad;
  }
}

// ---- errors ----

TEST_F(S3Test, ErrorsAreReadable) {
  std::string status, body;
  int calls = 0;
  TinyServer server([&](const ServerRequest&) -> ServerReply {
    ++calls;
    return {http_answer(status, body)};
  });
  HttpClient client(quick(keys(server.url(""))));
  const auto text_of = [&](const char* of_status, const std::string& xml, int expected_calls) {
    status = of_status;
    body = xml;
    calls = 0;
    std::string text;
    try {
      client.get("s3://bucket/key");
      ADD_FAILURE() << of_status;
    } catch (const NetError& error) {
      text = error.what();
    }
    EXPECT_EQ(calls, expected_calls) << text;
    return text;
  };
  EXPECT_EQ(text_of("404 Not Found",
                    "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message>"
                    "<Key>key</Key></Error>",
                    1),
            "s3://bucket/key: the server answers 404: NoSuchKey: The key does not exist.");
  EXPECT_TRUE(has(text_of("503 Slow Down", "<Error><Code>SlowDown</Code><Message>Reduce</Message></Error>", 4),
                  "503: SlowDown: Reduce"));
  EXPECT_TRUE(has(text_of("400 Bad", "<Error><Code>RequestTimeout</Code></Error>", 4), "RequestTimeout"));
  const std::string skewed = text_of("403 Forbidden",
                                     "<Error><Code>RequestTimeTooSkewed</Code><Message>large</Message>"
                                     "<ServerTime>2001-01-01T00:00:00Z</ServerTime></Error>",
                                     1);
  EXPECT_TRUE(has(skewed, "this machine's clock is ")) << skewed;
  EXPECT_TRUE(has(skewed, "minutes ahead of the server's: set it")) << skewed;
  EXPECT_TRUE(has(text_of("400 Bad", "<Error><Code>ExpiredToken</Code></Error>", 1), "get new credentials"));
  for (const std::string& xml :
       {std::string(), std::string("<html>no"), std::string("<Error><Code>\x1b[2J</Code></Error>"),
        std::string("\0\xFF", 2), "<Error><Message>" + std::string(100000, 'x'),
        std::string("<!DOCTYPE a [<!ENTITY b \"cc\">]><Error><Code>&b;</Code></Error>")}) {
    const std::string text = text_of("403 Forbidden", xml, 1);
    EXPECT_TRUE(has(text, "the server answers 403")) << text;
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_LT(text.size(), 700u);
  }
}

// ---- files ----

TEST_F(S3Test, DownloadsGoOnAndAreCompared) {
  std::string body(200000, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 2654435761u >> 13);
  std::string tag = md5_tag(body);
  size_t cut = 100000;
  TinyServer server([&](const ServerRequest& request) -> ServerReply {
    const std::string match = request.header("if-match");
    if (!match.empty() && match != tag) return {http_answer("412 Precondition Failed", "")};
    ServerReply reply = serve_file(request, body, tag);
    if (cut > 0) reply.bytes.resize(cut);
    cut = 0;
    return reply;
  });
  HttpClient client(quick(keys(server.url(""))));
  const fs::path file = folder_ / "a.tar";
  const HttpResponse response = client.download("s3://bucket/a.tar", file);
  EXPECT_EQ(content(file), body);
  EXPECT_EQ('"' + response.md5 + '"', tag);
  EXPECT_EQ(response.url, "s3://bucket/a.tar");
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_EQ(server.requests()[1].header("if-match"), tag) << "S3 promises nothing about If-Range";
  EXPECT_NE(server.requests()[1].header("range"), "");

  // Another object in between: from the beginning.
  HttpOptions once = quick(keys(server.url("")));
  once.tries = 1;
  cut = 50000;
  EXPECT_THROW(HttpClient(once).download("s3://bucket/b.tar", folder_ / "b.tar"), NetError);
  EXPECT_TRUE(fs::exists(folder_ / "b.tar.part"));
  body = "other";
  tag = md5_tag(body);
  client.download("s3://bucket/b.tar", folder_ / "b.tar");
  EXPECT_EQ(content(folder_ / "b.tar"), "other");
}

TEST_F(S3Test, AWrongMd5IsAnErrorWhereTheTagIsOne) {
  std::vector<std::string> headers;
  TinyServer server([&](const ServerRequest&) -> ServerReply { return {http_answer("200 OK", "bytes", headers)}; });
  HttpClient client(quick(keys(server.url(""))));
  const std::string wrong = "ETag: " + md5_tag("others");
  headers = {wrong};
  text_of_error(Kind::kChecksum, [&] { client.download("s3://bucket/a", folder_ / "a"); });
  EXPECT_EQ(server.requests().size(), 4u) << "tried again, from the beginning";
  EXPECT_EQ(server.requests().back().header("range"), "");
  EXPECT_FALSE(fs::exists(folder_ / "a"));
  text_of_error(Kind::kChecksum, [&] { client.get("s3://bucket/a"); });
  for (const std::string& other :
       {std::string("x-amz-server-side-encryption: aws:kms"), std::string("X-Amz-Server-Side-Encryption: aws:kms:dsse"),
        std::string("x-amz-server-side-encryption-customer-algorithm: AES256")}) {
    headers = {wrong, other};
    EXPECT_EQ(client.download("s3://bucket/a", folder_ / "a").md5, "") << other;
  }
  headers = {wrong, "x-amz-server-side-encryption: AES256"};
  text_of_error(Kind::kChecksum, [&] { client.get("s3://bucket/a"); });
  headers = {"ETag: \"d41d8cd98f00b204e9800998ecf8427e-3\""};  // of parts
  EXPECT_EQ(client.get("s3://bucket/a").body, "bytes");
  headers = {"ETag: " + md5_tag("bytes")};
  EXPECT_EQ('"' + client.get("s3://bucket/a").md5 + '"', md5_tag("bytes"));
  EXPECT_EQ(client.get("s3://bucket/a").md5.size(), 32u);
}

TEST_F(S3Test, TheCacheTakesThem) {
  TinyServer server(
      [](const ServerRequest& request) -> ServerReply { return {http_answer("200 OK", "of " + request.path)}; });
  HttpOptions options;
  options.s3_endpoint = server.url("");
  ::setenv("AWS_ENDPOINT_URL", "http://192.0.2.1", 1);
  UrlCache cache(folder_ / "cache", options);
  const fs::path file = cache.fetch("s3://bucket/a b.tar");
  EXPECT_EQ(content(file), "of /bucket/a%20b.tar");
  EXPECT_EQ(file.extension(), ".tar");
  EXPECT_EQ(cache.fetch("s3://bucket/a b.tar"), file);
  EXPECT_EQ(server.requests().size(), 1u);
}

// ---- listings ----

std::string page(const std::string& objects, const std::string& next = "", const std::string& more = "") {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult "
         "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
         "<EncodingType>url</EncodingType><IsTruncated>" +
         std::string(next.empty() ? "false" : "true") + "</IsTruncated>" + more + objects +
         (next.empty() ? "" : "<NextContinuationToken>" + next + "</NextContinuationToken>") + "</ListBucketResult>";
}
std::string object(const std::string& key, const std::string& size = "5", const std::string& tag = "&quot;t&quot;") {
  return "<Contents><Key>" + key + "</Key><Size>" + size + "</Size><ETag>" + tag + "</ETag></Contents>";
}

TEST_F(S3Test, ListsPageByPage) {
  TinyServer server([](const ServerRequest& request) -> ServerReply {
    const bool second = has(request.path, "continuation-token=t%2B1%2F%3D");
    return {http_answer("200 OK",
                        second ? page(object("p/z%25", "7"))
                               : page(object("p/a+b%2B%3D%3A%2A") + object("p/%C3%A9", "123456789012"), "t+1/="))};
  });
  HttpClient client(quick(keys(server.url(""))));
  std::vector<S3Object> found;
  client.list("s3://bucket/p/", [&](const S3Object& item) {
    found.push_back(item);
    return true;
  });
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].key, "p/a b+=:*");
  EXPECT_EQ(found[0].etag, "\"t\"");
  EXPECT_EQ(found[1].key, "p/\xC3\xA9");
  EXPECT_EQ(found[1].bytes, 123456789012u);
  EXPECT_EQ(found[2].key, "p/z%");
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_EQ(server.requests()[0].path, "/bucket?encoding-type=url&list-type=2&prefix=p%2F");
  EXPECT_EQ(server.requests()[1].path,
            "/bucket?continuation-token=t%2B1%2F%3D&encoding-type=url&list-type=2&prefix=p%2F");
  size_t visits = 0;
  client.list("s3://bucket/p/", [&](const S3Object&) { return ++visits < 2; });
  EXPECT_EQ(visits, 2u);
  EXPECT_EQ(server.requests().size(), 3u);
}

TEST_F(S3Test, HostileListings) {
  std::string answer;
  int calls = 0;
  bool fresh_tokens = false;
  TinyServer server([&](const ServerRequest&) -> ServerReply {
    ++calls;
    return {http_answer("200 OK", fresh_tokens ? page("", "t" + std::to_string(calls)) : answer)};
  });
  HttpClient client(quick(keys(server.url(""))));
  const auto list = [&] { client.list("s3://bucket/p", [](const S3Object&) { return true; }); };
  std::string deep, many;
  for (int i = 0; i < 100000; ++i) deep += "<a>";
  for (int i = 0; i < 500000; ++i) many += "<a/>";
  std::string objects;
  for (int i = 0; i < 20000; ++i) objects += object("p");
  for (const std::string& xml :
       {std::string(),
        std::string("<a"),
        std::string("{}"),
        std::string("<Error/>"),
        page(object("q")),
        page(object("")),
        page(object("p", "")),
        page(object("p", "-1")),
        page(object("p", "99999999999999999999")),
        page(object("p%2")),
        page(object("p%zz")),
        page("", "same"),
        page("<Contents/>"),
        std::string("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
        deep,
        many,
        page(deep),
        page(objects),
        std::string(100, '\0'),
        std::string("<!DOCTYPE a [<!ENTITY p SYSTEM \"file:///etc/passwd\">]>") + page(object("&p;"))}) {
    answer = xml;
    EXPECT_TRUE(has(text_of_error(Kind::kProtocol, list), "s3://bucket/p: ")) << xml.substr(0, 200);
  }
  answer = std::string((size_t{8} << 20) + 1, ' ');
  text_of_error(Kind::kSize, list);
  fresh_tokens = true;
  calls = 0;
  text_of_error(Kind::kProtocol, list);
  EXPECT_LE(calls, 1001);
}

// ---- the environment ----

TEST_F(S3Test, VariablesComeBeforeFiles) {
  EXPECT_FALSE(S3Options::from_environment().signs());
  write(".aws/credentials",
        "# comment\n[default]\naws_access_key_id = ID1\naws_secret_access_key=SECRET1\n\n"
        "[ other ]\r\naws_access_key_id=ID2\r\naws_secret_access_key = S/E=C+2 \r\naws_session_token = T2\r\n"
        "[half]\naws_access_key_id = ID3\n");
  write(".aws/config",
        "[default]\nregion = eu-north-1\n[profile other]\nregion=ap-south-1\nendpoint_url = https://any.example\n"
        "services = mine\ns3 =\n  addressing_style = path\n[services mine]\ns3 =\n"
        "  endpoint_url = https://store.example\n"
        "[profile sso]\nsso_session = x\n[profile \"in config\"]\naws_access_key_id=ID4\naws_secret_access_key=S4\n");
  S3Options options = S3Options::from_environment();
  EXPECT_EQ(options.access_key_id, "ID1");
  EXPECT_EQ(options.secret_access_key, "SECRET1");
  EXPECT_EQ(options.session_token, "");
  EXPECT_EQ(options.region, "eu-north-1");
  EXPECT_EQ(options.endpoint, "");

  ::setenv("AWS_PROFILE", "other", 1);
  options = S3Options::from_environment();
  EXPECT_EQ(options.access_key_id, "ID2");
  EXPECT_EQ(options.secret_access_key, "S/E=C+2");
  EXPECT_EQ(options.session_token, "T2");
  EXPECT_EQ(options.region, "ap-south-1");
  EXPECT_EQ(options.endpoint, "https://store.example");
  EXPECT_EQ(options.path_style, true);
  EXPECT_EQ(S3Options::from_environment("", "in config").access_key_id, "ID4");
  EXPECT_EQ(S3Options::from_environment("http://here").endpoint, "http://here");

  ::setenv("AWS_ACCESS_KEY_ID", "ID5", 1);
  ::setenv("AWS_SECRET_ACCESS_KEY", "S5\n", 1);
  ::setenv("AWS_DEFAULT_REGION", "r-5", 1);
  ::setenv("AWS_ENDPOINT_URL", "http://five", 1);
  options = S3Options::from_environment();
  EXPECT_EQ(options.access_key_id, "ID5");
  EXPECT_EQ(options.secret_access_key, "S5");
  EXPECT_EQ(options.session_token, "") << "a token of other keys";
  EXPECT_EQ(options.region, "r-5");
  EXPECT_EQ(options.endpoint, "http://five");
  EXPECT_EQ(S3Options::from_environment("", "other").access_key_id, "ID2") << "a named profile counts more";
  ::setenv("AWS_REGION", "r-6", 1);
  ::setenv("AWS_ENDPOINT_URL_S3", "http://six", 1);
  options = S3Options::from_environment();
  EXPECT_EQ(options.region, "r-6");
  EXPECT_EQ(options.endpoint, "http://six");

  for (const char* profile : {"half", "sso", "absent"}) {
    EXPECT_THROW(S3Options::from_environment("", profile), ConfigError) << profile;
  }
  ::unsetenv("AWS_SECRET_ACCESS_KEY");
  EXPECT_THROW(S3Options::from_environment(), ConfigError);
  ::unsetenv("AWS_ACCESS_KEY_ID");
  ::setenv("AWS_SHARED_CREDENTIALS_FILE", "~/elsewhere", 1);
  ::setenv("AWS_CONFIG_FILE", (folder_ / "config2").c_str(), 1);
  EXPECT_THROW(S3Options::from_environment(), ConfigError) << "the profile is not in these files";
  write("elsewhere", "[other]\naws_access_key_id = ID7\naws_secret_access_key = S7\n");
  EXPECT_EQ(S3Options::from_environment().access_key_id, "ID7");
}

}  // namespace
}  // namespace mdm
