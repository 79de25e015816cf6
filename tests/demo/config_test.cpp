// The configs of the models that are trained on the demo data.
#include <gtest/gtest.h>

#include <filesystem>

#include "mdm/config/config.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

LoadedConfig demo_config(const char* name) {
  LoadRequest request;
  request.yaml_files = {fs::path(MDM_PROJECT_DIR) / "configs/demo" / name};
  return load(request);
}

TEST(DemoConfigs, LoadWithoutAWarningAndCanBeBuilt) {
  for (const char* name : {"shapes_32.yaml", "shapes_nested_64.yaml", "emoji_32.yaml", "emoji_nested_64.yaml"}) {
    const LoadedConfig loaded = demo_config(name);
    EXPECT_TRUE(loaded.warnings.empty()) << name << ": " << loaded.warnings[0];
    const Config& config = loaded.config;
    EXPECT_EQ(config.text.kind, TextKind::kJoint) << name;
    EXPECT_TRUE(fs::exists(config.text.vocab_file)) << name << ": " << config.text.vocab_file;
    EXPECT_EQ(config.reader.max_token_length, config.text.joint_tokens) << name;
    EXPECT_EQ(config.sample.sample_image_size, config.reader.image_size) << name;
    EXPECT_EQ(config.trainer.batch_size, 32) << name;
    EXPECT_NE(config.sample.batch_size, config.trainer.batch_size) << name << ": each section has its own";
    const auto levels = resolve(config.model, config.text.joint_width);
    EXPECT_EQ(levels.back().config.attention_levels, (std::vector<int64_t>{1, 2})) << name;
    for (const auto& level : levels) EXPECT_TRUE(level.micros.empty()) << name;
    EXPECT_EQ(config.reader.image_size, 32 * level_scales(config.model)[0]) << name;
  }
}

TEST(DemoConfigs, OfTheNestedShapesHoldTheFlatOneInside) {
  const Config flat = demo_config("shapes_32.yaml").config;
  const Config nested = demo_config("shapes_nested_64.yaml").config;
  const auto inner = resolve(nested.model, nested.text.joint_width).back();
  const auto alone = resolve(flat.model, flat.text.joint_width).back();
  EXPECT_EQ(inner.config.resolution_channels, alone.config.resolution_channels);
  EXPECT_EQ(inner.config.num_resnets_per_resolution, alone.config.num_resnets_per_resolution);
  EXPECT_EQ(inner.config.num_attention_layers, alone.config.num_attention_layers);
  EXPECT_EQ(inner.config.temporal_dim, alone.config.temporal_dim);
  EXPECT_EQ(inner.conditioning_dim, alone.conditioning_dim);
  EXPECT_EQ(nested.text.joint_width, flat.text.joint_width);
  EXPECT_EQ(nested.text.joint_layers, flat.text.joint_layers);
}

}  // namespace
}  // namespace mdm
