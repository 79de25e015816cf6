// The settings in a PNG: written, and read back with nothing that a picture must not decide.
#include "pipeline/settings.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mdm/core/error.h"
#include "pipeline/support.h"

namespace mdm {
namespace {

std::filesystem::path png_with(const PngText& text) {
  const auto file = pipeline_test::scratch() / "settings.png";
  write_png(file, Image(2, 2, 3), text);
  return file;
}

Overrides restored(const nlohmann::json& json) { return settings_from_png(png_with({{kPngSettingsKey, json.dump()}})); }

Picture some_picture() {
  Picture picture;
  picture.request = pipeline_test::request("a \"cat\"\nand <b> \xC3\xA9", 12345678901234, "a dog, red");
  picture.image = Image(64, 64, 3);
  return picture;
}

SampleConfig unusual_settings() {
  SampleConfig sample;
  sample.guidance_scale = 3.1;
  sample.guidance_rescale = 0.7;
  sample.guidance_start = 0.125;
  sample.guidance_end = 0.875;
  sample.num_inference_steps = 17;
  sample.sampler = SamplerKind::kDdim;
  sample.ddim_eta = 1.0 / 3;
  sample.threshold = ThresholdType::kDynamicIf;
  sample.timestep_spacing = TimestepSpacing::kTrailing;
  return sample;
}

TEST(PictureSettings, ComeBackAsTheyWere) {
  Config config;
  config.text.pad = PadPolicy::parse("fixed:77");
  config.runtime.precision = Precision::kBf16;
  const SampleConfig sample = unusual_settings();
  const PngText text = settings_text(some_picture(), sample, config, "model.pth");
  LoadRequest request;
  request.overrides = settings_from_png(png_with(text));
  const Config back = load(request).config;
  EXPECT_EQ(back.sample.prompts, std::vector<std::string>{some_picture().request.prompt});
  EXPECT_EQ(back.sample.negative_prompts, std::vector<std::string>{"a dog, red"});
  EXPECT_EQ(back.sample.seed, 12345678901234);
  EXPECT_EQ(back.sample.guidance_scale, sample.guidance_scale);
  EXPECT_EQ(back.sample.guidance_rescale, sample.guidance_rescale);
  EXPECT_EQ(back.sample.guidance_start, sample.guidance_start);
  EXPECT_EQ(back.sample.guidance_end, sample.guidance_end);
  EXPECT_EQ(back.sample.num_inference_steps, 17);
  EXPECT_EQ(back.sample.sampler, SamplerKind::kDdim);
  EXPECT_EQ(back.sample.ddim_eta, sample.ddim_eta);
  EXPECT_EQ(back.sample.threshold, sample.threshold);
  EXPECT_EQ(back.sample.timestep_spacing, sample.timestep_spacing);
  EXPECT_EQ(back.sample.sample_image_size, 64);
  EXPECT_EQ(back.text.pad.text(), "fixed:77");
  EXPECT_EQ(back.runtime.precision, Precision::kBf16);
  EXPECT_EQ(back.sample.checkpoint, "");
}

TEST(PictureSettings, OfEveryChoiceHaveANameThatLoads) {
  for (const TimestepSpacing spacing : {TimestepSpacing::kReference, TimestepSpacing::kLeading,
                                        TimestepSpacing::kTrailing, TimestepSpacing::kLinspace}) {
    for (const ThresholdType threshold :
         {ThresholdType::kNone, ThresholdType::kClip, ThresholdType::kDynamic, ThresholdType::kDynamicIf}) {
      SampleConfig sample;
      sample.timestep_spacing = spacing;
      Config config;
      config.diffusion.sampler_config.threshold_function = threshold;  // counts where `sample` names none
      LoadRequest request;
      request.overrides = settings_from_png(png_with(settings_text(some_picture(), sample, config, "m")));
      const Config back = load(request).config;
      EXPECT_EQ(back.sample.timestep_spacing, spacing);
      EXPECT_EQ(back.sample.threshold, threshold);
      EXPECT_EQ(back.sample.sampler, SamplerKind::kDdpm);
    }
  }
}

TEST(PictureSettings, AreReadableToo) {
  const PngText text = settings_text(some_picture(), unusual_settings(), Config(), "model.pth");
  const std::string* readable = find_png_text(text, kPngParametersKey);
  ASSERT_NE(readable, nullptr);
  EXPECT_EQ(readable->rfind(some_picture().request.prompt +
                                "\nNegative prompt: a dog, red\nSteps: 17, Sampler: ddim, CFG scale: 3.1, "
                                "Seed: 12345678901234, Size: 64x64, Model: model.pth, Eta: 0.333333",
                            0),
            0u)
      << *readable;
}

TEST(PictureSettings, HoldAnyPrompt) {
  for (const std::string& prompt : {std::string(), std::string("None"), std::string("--x"), std::string("a=b, [c]"),
                                    std::string("\xF0\x9F\xA6\x8A"), std::string(20000, 'x')}) {
    Picture picture = some_picture();
    picture.request.prompt = prompt;
    LoadRequest request;
    request.overrides = settings_from_png(png_with(settings_text(picture, SampleConfig(), Config(), "m")));
    EXPECT_EQ(load(request).config.sample.prompts, std::vector<std::string>{prompt});
  }
  Picture picture = some_picture();
  picture.request.prompt = "bad \xFF byte";
  LoadRequest request;
  request.overrides = settings_from_png(png_with(settings_text(picture, SampleConfig(), Config(), "m")));
  EXPECT_EQ(load(request).config.sample.prompts, std::vector<std::string>{"bad \xEF\xBF\xBD byte"});
}

TEST(PictureSettings, ThatAPictureMustNotDecideAreNotTaken) {
  const nlohmann::json json = {
      {"prompt", "a"},      {"checkpoint", "/x"}, {"sample_dir", "/x"}, {"output_dir", "/x"},  {"prompts_file", "/x"},
      {"init_image", "/x"}, {"from_image", "/x"}, {"text_model", "/x"}, {"device", "cuda"},    {"num_samples", 1000},
      {"batch_size", 1000}, {"threads", 1000},    {"seed", 4},          {"animation", "apng"}, {"set", "a=b"}};
  EXPECT_EQ(restored(json), (Overrides{{"prompt", "a"}, {"seed", "4"}}));
  // Values that no flag could have.
  EXPECT_EQ(restored({{"prompt", {"a", "b"}}, {"seed", nullptr}, {"sampler", {{"a", 1}}}, {"pad", true}}),
            (Overrides{{"pad", "true"}}));
}

TEST(PictureSettings, ThatAreNoneAreErrorsThatNameTheFile) {
  const auto error_of = [](const PngText& text) -> std::string {
    try {
      settings_from_png(png_with(text));
      return "";
    } catch (const DataError& error) {
      return error.what();
    }
  };
  EXPECT_NE(error_of({}).find("settings.png: carries no settings"), std::string::npos);
  EXPECT_NE(error_of({{kPngParametersKey, "a cat\nSteps: 3"}}).find("carries no settings"), std::string::npos);
  for (const char* text : {"", "{", "[]", "3", "\"x\"", "null"}) {
    EXPECT_NE(error_of({{kPngSettingsKey, text}}).find("settings.png: its settings are no JSON object"),
              std::string::npos)
        << text;
  }
  EXPECT_NE(error_of({{kPngSettingsKey, std::string(100000, '[')}}).find("no JSON object"), std::string::npos);
}

}  // namespace
}  // namespace mdm
