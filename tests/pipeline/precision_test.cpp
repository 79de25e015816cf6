// bfloat16 draws what float32 draws: the demo models, 50 steps, the same noise.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "mdm/core/error.h"
#include "pipeline/support.h"
#include "support/pictures.h"

namespace mdm {
namespace {

struct DemoModel {
  const char* name;
  std::vector<std::string> prompts;
};

void PrintTo(const DemoModel& model, std::ostream* out) { *out << model.name; }

class DemoPictures : public ::testing::TestWithParam<DemoModel> {};

TEST_P(DemoPictures, InBfloat16AreThoseOfFloat32) {
  const auto drawn = [&](const char* precision) {
    Pipeline pipeline = Pipeline::from_checkpoint(
        std::filesystem::path(MDM_PROJECT_DIR) / "configs" / "demo" / GetParam().name, {}, {{"precision", precision}});
    SampleConfig settings = pipeline.config().sample;
    settings.num_inference_steps = 50;
    std::vector<PictureRequest> requests;
    for (const std::string& prompt : GetParam().prompts) {
      requests.push_back(pipeline_test::request(prompt, 100 + requests.size()));
    }
    return pipeline.generate(requests, settings);
  };
  const auto exact = drawn("fp32"), rounded = drawn("bf16");
  ASSERT_EQ(exact.size(), GetParam().prompts.size());
  ASSERT_EQ(rounded.size(), exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    const double quality = test_support::psnr(rounded[i].image, exact[i].image);
    EXPECT_GE(quality, 35) << GetParam().prompts[i];
    RecordProperty(concat("psnr_", i), concat(quality));
  }
}

INSTANTIATE_TEST_SUITE_P(All, DemoPictures,
                         ::testing::Values(DemoModel{"shapes_32.pth",
                                                     {"a red circle left of a blue square", "a green star",
                                                      "a yellow heart above a purple ring"}},
                                           DemoModel{"emoji_nested_64.pth", {"red apple", "penguin"}}));

}  // namespace
}  // namespace mdm
