// The weights that ship with the project draw what they are asked for, at their own settings, by the judge. What they
// can and what they can't: configs/README.md.
#include <filesystem>

#include "apps/workshop.h"
#include "mdm/demo/emoji.h"

namespace mdm::apps_test {
namespace {

class ShippedWeights : public ::testing::Test {
 protected:
  // The judge's report on `count` pictures of prompts that training has seen, `choice` says of which.
  nlohmann::json judged(const std::string& weights, std::vector<std::string> choice, int count,
                        const std::vector<std::string>& of_judge = {}) {
    const std::string prompts = folder_.file("prompts.txt"), drawn = folder_.file("drawn");
    std::filesystem::remove_all(drawn);
    choice.insert(choice.begin(), "prompts");
    choice.insert(choice.end(), {"--count", std::to_string(count), "--output", prompts});
    expect_success(run(MDM_DEMO_DATASET, choice));
    RunOptions options;
    options.seconds = 400;
    expect_success(sample({"--checkpoint", (project() / "configs/demo" / weights).string(), "--prompts-file", prompts,
                           "--sample-dir", drawn, "--seed", "1", "--gallery", "no"},
                          options));
    std::vector<std::string> words = {"judge", "--images", drawn};
    words.insert(words.end(), of_judge.begin(), of_judge.end());
    const Outcome outcome = run(MDM_DEMO_DATASET, words);
    expect_success(outcome);
    auto report = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(report.at("pictures"), count);
    return report;
  }
  Folder folder_;
};

TEST_F(ShippedWeights, DrawShapes) {
  EXPECT_GE(judged("shapes_32.pth", {"--two-objects", "0"}, 8).at("right"), 8);    // of 48: 48 when they were made
  EXPECT_GE(judged("shapes_32.pth", {"--two-objects", "1"}, 16).at("right"), 15);  // of 200: 199
}

TEST_F(ShippedWeights, DrawEmoji) {
  if (!EmojiFont::available() || !std::filesystem::exists(kEmojiFontFile) || !std::filesystem::exists(kEmojiListFile)) {
    GTEST_SKIP() << "the emoji are not here (scripts/setup.sh --dev)";
  }
  EXPECT_GE(judged("emoji_nested_64.pth", {"--emoji", "--seed", "2"}, 12, {"--emoji"}).at("right"), 10);  // of 100: 93
}

}  // namespace
}  // namespace mdm::apps_test
