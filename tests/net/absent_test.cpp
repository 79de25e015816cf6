// A build without libcurl: URLs are refused with a text that says why.
#include <gtest/gtest.h>

#include "mdm/net/url_cache.h"

namespace mdm {
namespace {

TEST(WithoutCurl, EveryUrlIsAClearError) {
  HttpClient client;
  for (const auto& run : std::vector<std::function<void()>>{
           [&] { client.get("http://example.org/a"); }, [&] { client.download("http://example.org/a", "a"); },
           [&] { UrlCache(::testing::TempDir() + "/mdm_no_curl").fetch("http://example.org/a"); }}) {
    try {
      run();
      FAIL() << "no error";
    } catch (const NetError& error) {
      EXPECT_EQ(error.kind(), NetError::Kind::kUnavailable);
      EXPECT_NE(std::string(error.what()).find("built without libcurl"), std::string::npos);
    }
  }
  EXPECT_TRUE(is_url("HTTPS://example.org"));
}

}  // namespace
}  // namespace mdm
