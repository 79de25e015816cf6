// s3:// URLs against a real implementation of S3 (moto), which checks signatures by botocore, and botocore itself.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "mdm/core/digest.h"
#include "mdm/net/http_client.h"
#include "mdm/net/s3.h"
#include "net/moto_server.h"
#include "net/sigv4.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using net_test::MotoServer;

constexpr char kNoMoto[] = "no Python with the packages moto and boto3 (scripts/setup.sh --dev makes one)";

// Keys that other signers get wrong.
const char* const kKeys[] = {"plain.tar",
                             "a=b.tar",
                             "a:b.tar",
                             "a*b.tar",
                             "a+b.tar",
                             "a%20b.tar",
                             "with space.tar",
                             "a=:*+% b.tar",
                             "sub/\xC3\xA9t\xC3\xA9 \xE6\xBC\xA2 \xF0\x9F\x98\x80.tar",
                             "q'()!~,;@$&.tar",
                             "back\\slash|^`.tar",
                             "<\">.tar"};

class MotoTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string python = net_test::moto_python();
    if (python.empty()) return;
    std::string name = (fs::path(::testing::TempDir()) / "mdm_moto_XXXXXX").string();
    folder_ = new fs::path(::mkdtemp(name.data()));
    big_ = new std::string(5'000'000, '\0');
    for (size_t i = 0; i < big_->size(); ++i) (*big_)[i] = static_cast<char>(i * 2654435761u >> 13);
    std::ofstream(*folder_ / "big", std::ios::binary) << *big_;
    nlohmann::json spec = {{"signed", true},
                           {"numbered", {{"bucket", "many"}, {"prefix", "n=1/x y+"}, {"count", 2500}}}};
    for (const char* key : kKeys) {
      spec["objects"].push_back({{"bucket", "odd"}, {"key", key}, {"text", std::string("of ") + key}});
    }
    spec["objects"].push_back({{"bucket", "odd"}, {"key", "big.tar"}, {"file", (*folder_ / "big").string()}});
    server_ = new MotoServer(python, *folder_, spec.dump());
  }
  static void TearDownTestSuite() {
    delete server_;
    delete big_;
    if (folder_ != nullptr) fs::remove_all(*folder_);
    delete folder_;
  }
  void SetUp() override {
    if (server_ == nullptr) GTEST_SKIP() << kNoMoto;
  }
  static HttpOptions options() {
    S3Options s3;
    s3.endpoint = server_->endpoint();
    s3.access_key_id = server_->id();
    s3.secret_access_key = server_->secret();
    HttpOptions options;
    options.first_wait_seconds = 0.01;
    options.s3 = std::make_shared<const S3Options>(s3);
    return options;
  }
  static int status_of(HttpOptions options, const std::string& url, std::string* text = nullptr) {
    try {
      HttpClient(std::move(options)).get(url);
      return 200;
    } catch (const NetError& error) {
      if (text != nullptr) *text = error.what();
      return error.status();
    }
  }

  static MotoServer* server_;
  static fs::path* folder_;
  static std::string* big_;
};
MotoServer* MotoTest::server_ = nullptr;
fs::path* MotoTest::folder_ = nullptr;
std::string* MotoTest::big_ = nullptr;

TEST_F(MotoTest, ReadsKeysThatAreHardToSign) {
  HttpClient client(options());
  for (const std::string key : kKeys) EXPECT_EQ(client.get("s3://odd/" + key).body, "of " + key);
  std::vector<std::string> listed;
  client.list("s3://odd", [&](const S3Object& object) {
    listed.push_back(object.key);
    return true;
  });
  for (const std::string key : kKeys) EXPECT_EQ(std::count(listed.begin(), listed.end(), key), 1) << key;
  EXPECT_EQ(listed.size(), std::size(kKeys) + 1);
}

TEST_F(MotoTest, RefusesWrongSignatures) {
  std::string text;
  EXPECT_EQ(status_of(options(), "s3://odd/absent", &text), 404);
  EXPECT_NE(text.find("s3://odd/absent: the server answers 404: NoSuchKey: "), std::string::npos) << text;
  EXPECT_EQ(status_of(options(), "s3://no-such-bucket/k", &text), 404);
  EXPECT_NE(text.find("NoSuchBucket"), std::string::npos) << text;

  S3Options wrong = *options().s3;
  wrong.secret_access_key.back() ^= 1;
  HttpOptions other = options();
  other.s3 = std::make_shared<const S3Options>(wrong);
  EXPECT_EQ(status_of(other, "s3://odd/plain.tar", &text), 403) << "the server does check signatures";
  EXPECT_NE(text.find("SignatureDoesNotMatch"), std::string::npos) << text;
  EXPECT_EQ(text.find(wrong.secret_access_key), std::string::npos);
  wrong = *options().s3;
  wrong.access_key_id = "AKIAUNKNOWN";
  other.s3 = std::make_shared<const S3Options>(wrong);
  EXPECT_EQ(status_of(other, "s3://odd/plain.tar", &text), 403);
  EXPECT_NE(text.find("InvalidAccessKeyId"), std::string::npos) << text;
}

TEST_F(MotoTest, ListsAllPages) {
  HttpClient client(options());
  std::vector<S3Object> found;
  client.list("s3://many/n=1/x y+", [&](const S3Object& object) {
    found.push_back(object);
    return true;
  });
  ASSERT_EQ(found.size(), 2500u);
  EXPECT_EQ(found[0].key, "n=1/x y+00000");
  EXPECT_EQ(found[2499].key, "n=1/x y+02499");
  EXPECT_EQ(found[2499].bytes, 4u);
  Digest digest(Digest::Kind::kMd5);
  digest.add("2499");
  EXPECT_EQ(found[2499].etag, '"' + digest.finish_hex() + '"');
  EXPECT_EQ(client.get("s3://many/" + found[1234].key).body, "1234");
  size_t none = 0;
  client.list("s3://many/absent", [&](const S3Object&) { return ++none > 0; });
  EXPECT_EQ(none, 0u);
}

TEST_F(MotoTest, RangesAndResume) {
  HttpClient client(options());
  EXPECT_EQ(client.get("s3://odd/big.tar", HttpRange{1000, 50}).body, big_->substr(1000, 50));
  EXPECT_EQ(client.get("s3://odd/big.tar", HttpRange{big_->size() - 10, 100}).body, big_->substr(big_->size() - 10));

  std::atomic<bool> cancel{false};
  uint64_t came = 0;
  HttpOptions broken = options();
  broken.cancel = &cancel;
  broken.on_bytes = [&](uint64_t bytes) {
    came += bytes;
    if (came > big_->size() / 3) cancel = true;
  };
  const fs::path target = *folder_ / "big.tar";
  EXPECT_THROW(HttpClient(broken).download("s3://odd/big.tar", target), NetError);
  EXPECT_FALSE(fs::exists(target));
  const uint64_t kept = fs::file_size(target.string() + ".part");
  EXPECT_GT(kept, big_->size() / 4);
  HttpOptions again = options();
  uint64_t later = 0;
  again.on_bytes = [&](uint64_t bytes) { later += bytes; };
  const HttpResponse response = HttpClient(again).download("s3://odd/big.tar", target);
  EXPECT_EQ(response.status, 206);
  EXPECT_EQ(later, big_->size() - kept) << "only the rest was sent";
  EXPECT_EQ(digest_file(target, Digest::Kind::kMd5).hex, response.md5);
  std::ifstream in(target, std::ios::binary);
  EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(in), {}) == *big_);
}

// Of keys and queries made of whatever bytes, 100 each.
TEST(SigV4, AgreesWithBotocore) {
  const std::string python = net_test::moto_python();
  if (python.empty()) GTEST_SKIP() << kNoMoto;
  uint64_t state = 20130524;
  const auto next = [&state](uint64_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % bound;
  };
  const std::string alphabet[] = {"a",
                                  "Z",
                                  "0",
                                  "-",
                                  "_",
                                  ".",
                                  "~",
                                  "/",
                                  "//",
                                  "/../",
                                  " ",
                                  "=",
                                  ":",
                                  "*",
                                  "+",
                                  "%",
                                  "%2F",
                                  "?",
                                  "#",
                                  "&",
                                  ";",
                                  "'",
                                  "\"",
                                  "(",
                                  "!",
                                  "$",
                                  "@",
                                  ",",
                                  "[",
                                  "|",
                                  "\xC3\xA9",
                                  "\xE6\xBC\xA2",
                                  "\xF0\x9F\x98\x80",
                                  "\t"};
  const auto word = [&](uint64_t most) {
    std::string text;
    for (uint64_t left = next(most) + 1; left > 0; --left) text += alphabet[next(std::size(alphabet))];
    return text;
  };
  nlohmann::json cases;
  for (int i = 0; i < 200; ++i) {
    net::SigningInput input;
    input.path = "/bucket/" + net::uri_encoded(word(40), true);
    for (uint64_t left = i % 2 == 0 ? 0 : next(5) + 1; left > 0; --left) {
      input.query.emplace_back(word(6), next(4) == 0 ? "" : word(10));
    }
    input.time = net::amz_time(static_cast<std::time_t>(1700000000 + next(100000000)));
    input.region = next(2) == 0 ? "us-east-1" : "eu-west-3";
    input.body_sha256 = net::kEmptyBodySha256;
    const std::string host = next(2) == 0 ? "127.0.0.1:9000" : "bucket.s3.eu-west-3.amazonaws.com";
    const std::string token = next(2) == 0 ? "" : "token/+=" + std::to_string(next(1000));
    nlohmann::json sent = {{"X-Amz-Meta-Z", word(3)}};
    sent["X-Amz-Meta-Z"] = "  a   b" + std::to_string(i) + " ";
    if (next(2) == 0) sent["Range"] = "bytes=" + std::to_string(i) + "-";
    for (const auto& [name, value] : sent.items()) input.headers.emplace_back(name, value.get<std::string>());
    input.headers.emplace_back("host", host);
    input.headers.emplace_back("x-amz-date", input.time);
    input.headers.emplace_back("x-amz-content-sha256", input.body_sha256);
    if (!token.empty()) input.headers.emplace_back("x-amz-security-token", token);
    const std::string query = net::canonical_query(input.query);
    cases.push_back(
        {{"url", "http://" + host + input.path + (query.empty() ? "" : "?") + query},
         {"headers", sent},
         {"id", "AKIDEXAMPLE"},
         {"secret", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"},
         {"token", token},
         {"region", input.region},
         {"time", input.time},
         {"authorization", net::authorization(input, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")}});
  }
  const fs::path file = fs::path(::testing::TempDir()) / ("mdm_signatures_" + std::to_string(::getpid()) + ".json");
  std::ofstream(file) << cases.dump();
  const std::string command =
      "\"" + python + "\" \"" + MDM_TEST_DATA + "/net/check_signatures.py\" \"" + file.string() + "\" >&2";
  EXPECT_EQ(std::system(command.c_str()), 0);
  fs::remove(file);
}

}  // namespace
}  // namespace mdm
