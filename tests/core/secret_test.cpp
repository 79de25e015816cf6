#include "mdm/core/secret.h"

#include <gtest/gtest.h>

#include <set>

#include "mdm/core/digest.h"

namespace mdm {
namespace {

TEST(Secret, RandomTextsAreOfTheirLengthAndNeverTheSame) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string text = random_hex(16);
    ASSERT_EQ(text.size(), 32u);
    EXPECT_EQ(text.find_first_not_of("0123456789abcdef"), std::string::npos);
    EXPECT_TRUE(seen.insert(text).second);
  }
  EXPECT_EQ(random_hex(0), "");
}

TEST(Secret, EqualTextsAreEqual) {
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  EXPECT_TRUE(equal_in_constant_time("", ""));
  for (const char* other : {"", "secre", "secret ", "Secret", "secret\n"}) {
    EXPECT_FALSE(equal_in_constant_time("secret", other)) << other;
  }
  EXPECT_FALSE(equal_in_constant_time(std::string("a\0b", 3), std::string("a\0c", 3)));
}

// RFC 4648, section 10.
TEST(Base64, GivesTheVectorsOfTheRfc) {
  EXPECT_EQ(to_base64(""), "");
  EXPECT_EQ(to_base64("f"), "Zg==");
  EXPECT_EQ(to_base64("fo"), "Zm8=");
  EXPECT_EQ(to_base64("foo"), "Zm9v");
  EXPECT_EQ(to_base64("foob"), "Zm9vYg==");
  EXPECT_EQ(to_base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(to_base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(to_base64(std::string("\0\xff\xfe", 3)), "AP/+");
}

}  // namespace
}  // namespace mdm
