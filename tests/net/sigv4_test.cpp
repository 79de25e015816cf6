// Signatures against what AWS has published: its test suite ("get-vanilla" and others) and the examples of the S3
// documentation.
#include "net/sigv4.h"

#include <gtest/gtest.h>

#include "mdm/core/digest.h"

namespace mdm::net {
namespace {

std::string signature_of(const std::string& header) { return header.substr(header.rfind('=') + 1); }

// The suite's credentials, host, day and service.
std::string suite(const std::string& path, const NameValues& query, const NameValues& more = {},
                  const std::string& method = "GET") {
  SigningInput input;
  input.method = method;
  input.path = uri_encoded(path, true);
  input.query = query;
  input.time = "20150830T123600Z";
  input.body_sha256 = kEmptyBodySha256;
  input.region = "us-east-1";
  input.service = "service";
  input.headers = {{"Host", "example.amazonaws.com"}, {"X-Amz-Date", input.time}};
  input.headers.insert(input.headers.end(), more.begin(), more.end());
  return authorization(input, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
}

TEST(SigV4, AgreesWithTheTestSuite) {
  EXPECT_EQ(suite("/", {}),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
  EXPECT_EQ(signature_of(suite("/", {{"Param2", "value2"}, {"Param1", "value1"}})),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
  EXPECT_EQ(signature_of(suite("/", {{"Param1", "value1"}})),
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb");
  EXPECT_EQ(signature_of(suite("/", {{"\u1234", "bar"}})),
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04");
  EXPECT_EQ(signature_of(suite("/\u1234", {})), "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
  EXPECT_EQ(signature_of(suite("/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", {})),
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
  EXPECT_EQ(signature_of(suite("/", {}, {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}})),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
  EXPECT_EQ(signature_of(suite("/", {}, {}, "POST")),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
}

// The S3 documentation's examples.
std::string example(const std::string& method, const std::string& key, const NameValues& query, const NameValues& more,
                    const std::string& body_sha256 = kEmptyBodySha256) {
  SigningInput input;
  input.method = method;
  input.path = uri_encoded(key, true);
  input.query = query;
  input.time = "20130524T000000Z";
  input.body_sha256 = body_sha256;
  input.region = "us-east-1";
  input.headers = {
      {"Host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", body_sha256}, {"x-amz-date", input.time}};
  input.headers.insert(input.headers.end(), more.begin(), more.end());
  return authorization(input, "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
}

TEST(SigV4, AgreesWithTheDocumentationOfS3) {
  EXPECT_EQ(example("GET", "/test.txt", {}, {{"Range", "bytes=0-9"}}),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  EXPECT_EQ(signature_of(example("GET", "/", {{"lifecycle", ""}}, {})),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(signature_of(example("GET", "/", {{"prefix", "J"}, {"max-keys", "2"}}, {})),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
  EXPECT_EQ(
      signature_of(example("PUT", "/test$file.text", {},
                           {{"Date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                           sha256_hex("Welcome to Amazon S3."))),
      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(SigV4, EncodesEachByteOnce) {
  EXPECT_EQ(uri_encoded("a b/c=d:e*f+g%20", true), "a%20b/c%3Dd%3Ae%2Af%2Bg%2520");
  EXPECT_EQ(uri_encoded("a/b~", false), "a%2Fb~");
  EXPECT_EQ(uri_encoded("/x//y/../\xC3\xA9\xFF", true), "/x//y/../%C3%A9%FF");
  EXPECT_EQ(canonical_query({{"b", "2 "}, {"a", ""}, {"a-", "1"}, {"a", "/"}}), "a=&a=%2F&a-=1&b=2%20");
  EXPECT_EQ(amz_time(1369353600), "20130524T000000Z");
}

}  // namespace
}  // namespace mdm::net
