// Lists of prompts: text files, the reference's tables, and how many pictures they make.
#include "pipeline/prompts.h"

#include <gtest/gtest.h>

#include "mdm/core/error.h"
#include "pipeline/support.h"

namespace mdm {
namespace {

using pipeline_test::scratch_file;
using Texts = std::vector<std::string>;

Texts prompts_in(const std::string& bytes) { return read_prompts(scratch_file("prompts.txt", bytes)); }

std::string prompts_error(const std::string& bytes) {
  try {
    prompts_in(bytes);
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

TEST(Prompts, AreTheLinesOfATextFile) {
  EXPECT_EQ(prompts_in("a cat\na dog\n"), (Texts{"a cat", "a dog"}));
  EXPECT_EQ(prompts_in("a cat"), Texts{"a cat"});
  EXPECT_EQ(prompts_in("\n\na cat\n\n\r\na dog\r\n"), (Texts{"a cat", "a dog"}));
  EXPECT_EQ(prompts_in("\xEF\xBB\xBF"
                       "a cat\n"),
            Texts{"a cat"});
  EXPECT_EQ(prompts_in(" spaces stay \n"), Texts{" spaces stay "});
  EXPECT_EQ(prompts_in("a\tb\n"), Texts{"a\tb"});  // a tab alone makes no table
  EXPECT_EQ(prompts_in("\"quoted\"\n"), Texts{"\"quoted\""});
  EXPECT_EQ(prompts_in("t\xC3\xA9l\xC3\xA9 \xF0\x9F\xA6\x8A\n"), Texts{"t\xC3\xA9l\xC3\xA9 \xF0\x9F\xA6\x8A"});
}

TEST(Prompts, AreTheColumnCaptionOfATable) {
  EXPECT_EQ(prompts_in("caption\na cat\n"), Texts{"a cat"});
  EXPECT_EQ(prompts_in("image\tcaption\tsource\na.jpg\ta cat\tx\nb.jpg\ta dog\ty\n"), (Texts{"a cat", "a dog"}));
  EXPECT_EQ(prompts_in("\xEF\xBB\xBF"
                       "\"image\"\t\"caption\"\r\na\t\"a \"\"red\"\" cat\"\r\n"),
            Texts{"a \"red\" cat"});
  EXPECT_EQ(prompts_in("caption\n\"\"\n\"\n\"\"\"\"\n"), (Texts{"", "\"", "\""}));
  EXPECT_EQ(prompts_in("image\tcaption\na\t\n"), Texts{""});  // an empty caption is a caption
}

TEST(Prompts, ThatCanNotBeReadNameTheFileAndTheLine) {
  EXPECT_NE(prompts_error("").find("prompts.txt: holds no prompt"), std::string::npos);
  EXPECT_NE(prompts_error("\r\n\n").find("prompts.txt: holds no prompt"), std::string::npos);
  EXPECT_NE(prompts_error("image\tcaption\n").find("holds no prompt"), std::string::npos);
  EXPECT_NE(prompts_error("image\tcaption\na\tx\nb\n").find("prompts.txt:3: has 1 columns, the caption is in column 2"),
            std::string::npos);
  EXPECT_NE(prompts_error("a\n" + std::string((1 << 20) + 1, 'x')).find("prompts.txt:2: the line is longer than 1 MiB"),
            std::string::npos);
  EXPECT_EQ(prompts_error(std::string(1 << 20, 'x')), "");
  for (const char* bad : {"\xFF", "bad \xC0\xAF slash", "cut \xF0\x9F\xA6", "\xED\xA0\x80", "caf\xE9"}) {
    const std::string error = prompts_error("a cat\n\n" + std::string(bad) + "\na dog\n");
    EXPECT_NE(error.find("prompts.txt:3: \""), std::string::npos) << error;
    EXPECT_NE(error.find("is not valid UTF-8"), std::string::npos) << error;
    EXPECT_NE(error.find("\\x"), std::string::npos) << error;
    EXPECT_NE(prompts_error("image\tcaption\nx\t" + std::string(bad) + "\n").find("prompts.txt:2: "),
              std::string::npos);
  }
  EXPECT_THROW(read_prompts(pipeline_test::scratch() / "gone.txt"), DataError);
  EXPECT_THROW(read_prompts(pipeline_test::scratch()), DataError);
}

TEST(PictureRequests, GoPromptByPromptAndCountTheSeedUp) {
  SampleConfig sample;
  sample.prompts = {"a", "b"};
  sample.prompts_file = scratch_file("more.txt", "c\n").string();
  sample.negative_prompts = {"not"};
  sample.num_samples = 2;
  const auto requests = picture_requests(sample, 40);
  ASSERT_EQ(requests.size(), 6u);
  const Texts expected = {"a", "a", "b", "b", "c", "c"};
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(requests[i].prompt, expected[i]);
    EXPECT_EQ(requests[i].negative_prompt, "not");
    EXPECT_EQ(requests[i].seed, 40 + i);
  }
}

TEST(PictureRequests, TakeNegativePromptsOneForAllOrOneEach) {
  SampleConfig sample;
  sample.prompts = {"a", "b"};
  sample.negative_prompts = {"x", "y"};
  auto requests = picture_requests(sample, 0);
  EXPECT_EQ(requests[0].negative_prompt, "x");
  EXPECT_EQ(requests[1].negative_prompt, "y");
  sample.negative_prompts = {};
  EXPECT_EQ(picture_requests(sample, 0)[0].negative_prompt, "");
  sample.negative_prompts = {"x", "y", "z"};
  EXPECT_THROW(picture_requests(sample, 0), ConfigError);
  sample.prompts.clear();
  EXPECT_THROW(picture_requests(sample, 0), ConfigError);
  sample.prompts = {""};  // an empty prompt is one
  sample.negative_prompts = {};
  EXPECT_EQ(picture_requests(sample, 0).size(), 1u);
}

}  // namespace
}  // namespace mdm
