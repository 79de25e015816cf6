// Texts of errors, nearest names, log levels.
#include "mdm/core/error.h"

#include <gtest/gtest.h>

#include <vector>

#include "mdm/core/log.h"
#include "mdm/core/utf8.h"

namespace mdm {
namespace {

using namespace std::string_literals;

TEST(Error, KindsAreErrors) {
  EXPECT_THROW(fail<ConfigError>("a"), Error);
  EXPECT_THROW(fail<DataError>("a"), Error);
  EXPECT_THROW(fail<CheckpointError>("a"), Error);
  EXPECT_THROW(fail<DistributedError>("a"), Error);
  try {
    fail<DataError>("line ", 3, ": ", 1.5, ' ', "x"s);
  } catch (const DataError& error) {
    EXPECT_STREQ(error.what(), "line 3: 1.5 x");
  }
}

TEST(Printable, EscapesControlsAndBrokenUtf8) {
  EXPECT_EQ(printable("caf\xC3\xA9 \xF0\x9F\x98\x80"), "caf\xC3\xA9 \xF0\x9F\x98\x80");
  EXPECT_EQ(printable("a\x1b[31m\n\t\x7F"), "a\\x1b[31m\\x0a\\x09\\x7f");
  EXPECT_EQ(printable("a\0b"s), "a\\x00b");
  EXPECT_EQ(printable("\xC2\x9B"), "\\xc2\\x9b");  // a control of ISO 6429
  EXPECT_EQ(printable("\xFF\xC3"), "\\xff\\xc3");
  EXPECT_EQ(printable("\xED\xA0\x80\xC0\x80\xF4\x90\x80\x80"), "\\xed\\xa0\\x80\\xc0\\x80\\xf4\\x90\\x80\\x80");
}

TEST(Utf8, IsWellFormedOrNot) {
  for (const std::string& text :
       {std::string(), std::string("a"), std::string(1, '\0'), std::string("\xC2\x80\xDF\xBF"),
        std::string("\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80"), std::string("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF")}) {
    EXPECT_TRUE(is_utf8(text)) << printable(text);
  }
  for (const char* text : {"\x80", "\xC1\xBF", "\xC3", "\xC3x", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82",
                           "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "ok \xF0\x9F\xA6"}) {
    EXPECT_FALSE(is_utf8(text)) << printable(text);
  }
  EXPECT_EQ(utf8_length(""), 0u);
  EXPECT_EQ(utf8_length("\xF0\x9F\xA6\x8A tail"), 4u);
}

TEST(Printable, CutsLongTexts) {
  EXPECT_EQ(printable(std::string(300, 'x')), std::string(200, 'x') + "...");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
  EXPECT_EQ(printable("abc", 3), "abc");
  EXPECT_EQ(printable("ab\xC3\xA9z", 3), "ab\xC3\xA9...");  // never within a character
}

TEST(NearestName, FindsWhatWasMeant) {
  const std::vector<std::string> names = {"guidance_scale", "num_inference_steps", "seed"};
  EXPECT_EQ(nearest_name("guidance-scal", names), "guidance_scale");
  EXPECT_EQ(nearest_name("SEED", names), "seed");
  EXPECT_EQ(nearest_name("num_steps", names), "");
  EXPECT_EQ(nearest_name("zzz", names), "");
  EXPECT_EQ(nearest_name("x", std::vector<std::string>()), "");
}

TEST(NearestName, EditDistance) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("A-b", "a_B"), 0u);
}

TEST(Log, Levels) {
  EXPECT_EQ(parse_log_level("DEBUG"), LogLevel::kDebug);
  EXPECT_EQ(parse_log_level("warn"), LogLevel::kWarning);
  EXPECT_EQ(parse_log_level("off"), LogLevel::kOff);
  EXPECT_THROW(parse_log_level("loud\x1b"), ConfigError);
}

TEST(Log, LinesGoToStderrAboveTheLevel) {
  testing::internal::CaptureStderr();
  set_log_level(LogLevel::kWarning);
  set_log_prefix("rank 3: ");
  log_info("hidden");
  log_warning("shown ", 5, " {}");
  set_log_prefix("");
  set_log_level(LogLevel::kInfo);
  const std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_EQ(lines.find("hidden"), std::string::npos);
  EXPECT_NE(lines.find("rank 3: shown 5 {}\n"), std::string::npos) << lines;
}

}  // namespace
}  // namespace mdm
