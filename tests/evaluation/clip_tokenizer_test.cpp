// Tokens are those of Hugging Face's CLIPTokenizer, whatever the text.
#include "mdm/evaluation/clip_tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "evaluation/golden.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

std::string shown(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += std::to_string(id) + " ";
  return text;
}

fs::path folder_with(const std::string& vocabulary, const std::string& merges) {
  const fs::path folder = testing::scratch_folder() / "tokenizer";
  fs::create_directories(folder);
  write_file(folder / "vocab.json", vocabulary);
  write_file(folder / "merges.txt", merges);
  return folder;
}

TEST(ClipTokenizer, AgreesWithHuggingFace) {
  const ClipTokenizer tokenizer = ClipTokenizer::open(testing::golden_folder() / "clip");
  const auto& golden = testing::expected()["clip"];
  for (size_t i = 0; i < golden["captions"].size(); ++i) {
    const auto caption = golden["captions"][i].get<std::string>();
    EXPECT_EQ(shown(tokenizer.encode(caption)), shown(golden["tokens"][i].get<std::vector<int32_t>>())) << caption;
  }
}

TEST(ClipTokenizer, ReadsTokenizerJson) {
  const ClipTokenizer tokenizer = ClipTokenizer::open(testing::golden_folder() / "clip");
  const fs::path folder = testing::scratch_folder() / "tokenizer_json";
  fs::create_directories(folder);
  nlohmann::json model = {{"type", "BPE"}, {"end_of_word_suffix", "</w>"}, {"merges", nlohmann::json::array()}};
  model["vocab"] = nlohmann::json::parse(read_text_file(testing::golden_folder() / "clip" / "vocab.json"));
  std::ifstream merges(testing::golden_folder() / "clip" / "merges.txt");
  std::string line;
  for (std::getline(merges, line); std::getline(merges, line);) {
    if (model["merges"].size() % 2 == 0) {  // both forms are found
      model["merges"].push_back(line);
    } else {
      model["merges"].push_back({line.substr(0, line.find(' ')), line.substr(line.find(' ') + 1)});
    }
  }
  write_file(folder / "tokenizer.json", nlohmann::json{{"model", model}}.dump());
  const ClipTokenizer other = ClipTokenizer::open(folder);
  for (const auto& caption : testing::expected()["clip"]["captions"]) {
    EXPECT_EQ(shown(other.encode(caption.get<std::string>())), shown(tokenizer.encode(caption.get<std::string>())));
  }
}

TEST(ClipTokenizer, CutsTokensNotCharacters) {
  const ClipTokenizer tokenizer = ClipTokenizer::open(testing::golden_folder() / "clip");
  bool cut = true;
  const std::vector<int32_t> few = tokenizer.encode("a fox", 77, &cut);
  EXPECT_FALSE(cut);
  std::string many;
  for (int i = 0; i < 75; ++i) many += "1 ";
  EXPECT_EQ(tokenizer.encode(many, 77, &cut).size(), 77U);
  EXPECT_FALSE(cut);
  const std::vector<int32_t> most = tokenizer.encode(many + "1", 77, &cut);
  EXPECT_TRUE(cut);
  EXPECT_EQ(most.size(), 77U);
  EXPECT_EQ(most.front(), few.front());
  EXPECT_EQ(most.back(), few.back());
}

TEST(ClipTokenizer, TakesAnyBytes) {
  const ClipTokenizer tokenizer = ClipTokenizer::open(testing::golden_folder() / "clip");
  EXPECT_EQ(shown(tokenizer.encode("a\xFF\xC3 b")), shown(tokenizer.encode("a\xEF\xBF\xBD\xEF\xBF\xBD b")));
  EXPECT_GT(tokenizer.encode(std::string("a\0b", 3)).size(), 3U);
  EXPECT_THROW(tokenizer.encode(std::string(ClipTokenizer::kMaxCaptionBytes + 1, 'x')), DataError);
  const auto start = std::chrono::steady_clock::now();
  tokenizer.encode(std::string(ClipTokenizer::kMaxCaptionBytes, 'x'));  // one word of a million letters
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(ClipTokenizer, SaysWhatIsWrongWithItsFiles) {
  const auto problem = [](const std::string& vocabulary, const std::string& merges) {
    try {
      ClipTokenizer::open(folder_with(vocabulary, merges));
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string good = R"({"a": 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4})";
  EXPECT_EQ(problem(good, "#version: 0.2\na b</w>\n"), "");
  EXPECT_NE(problem("[]", "").find("no vocabulary"), std::string::npos);
  EXPECT_NE(problem(R"({"a": -1})", "").find("the id of 'a'"), std::string::npos);
  EXPECT_NE(problem(R"({"a": 0})", "").find("has no <|startoftext|>"), std::string::npos);
  EXPECT_NE(problem(good, "a c\n").find("not in the vocabulary"), std::string::npos);
  EXPECT_NE(problem(good, "abc\n").find("not a pair"), std::string::npos);
  EXPECT_THROW(ClipTokenizer::open("/nowhere"), ConfigError);
}

}  // namespace
}  // namespace mdm
