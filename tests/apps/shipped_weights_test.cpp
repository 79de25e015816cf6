// The weights that ship with the project draw what they are asked for, at their own settings, by the judge. What they
// can and what they can't: configs/README.md.
#include "apps/workshop.h"

namespace mdm::apps_test {
namespace {

class ShippedWeights : public ::testing::Test {
 protected:
  // The judge's report on `count` pictures of one or two objects that training has seen.
  nlohmann::json judged(int objects, int count) {
    const std::string name = std::to_string(objects), prompts = folder_.file(name + ".txt"), drawn = folder_.file(name);
    expect_success(run(MDM_DEMO_DATASET, {"prompts", "--two-objects", objects == 2 ? "1" : "0", "--count",
                                          std::to_string(count), "--output", prompts}));
    RunOptions options;
    options.seconds = 400;
    expect_success(sample({"--checkpoint", (project() / "configs/demo/shapes_32.pth").string(), "--prompts-file",
                           prompts, "--sample-dir", drawn, "--seed", "1", "--gallery", "no"},
                          options));
    const Outcome outcome = run(MDM_DEMO_DATASET, {"judge", "--images", drawn});
    expect_success(outcome);
    auto report = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(report.at("pictures"), count);
    return report;
  }
  Folder folder_;
};

TEST_F(ShippedWeights, DrawWhatTheyAreAskedFor) {
  EXPECT_GE(judged(1, 8).at("right"), 8);    // of 48: 48 when they were made
  EXPECT_GE(judged(2, 16).at("right"), 15);  // of 200: 199
}

}  // namespace
}  // namespace mdm::apps_test
