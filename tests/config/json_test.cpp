// Configs out of checkpoints: forms that a reader of pickles may hand over, and what is no config.
#include <gtest/gtest.h>

#include "config/support.h"
#include "mdm/config/config.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using testing::mentions;

TEST(CheckpointJson, EnumsAreNamesOrObjects) {
  const auto schedule = [](const std::string& value) {
    return config_from_json(
               "{\"unet_config\": {}, \"diffusion_config\": {\"sampler_config\": {\"schedule_type\": " + value + "}}}")
        .diffusion.sampler_config.schedule_type;
  };
  for (const char* value :
       {"\"SIGMOID\"", "\"sigmoid\"", "{\"__class__\": \"ml_mdm.samplers.ScheduleType\", \"name\": \"SIGMOID\"}",
        "{\"__class__\": \"samplers.ScheduleType\", \"value\": 4}",
        "{\"__class__\": \"ml_mdm.samplers.ScheduleType\", \"args\": [4]}",
        "{\"__class__\": \"ScheduleType\", \"name\": \"SIGMOID\", \"value\": 4}"}) {
    EXPECT_EQ(schedule(value), ScheduleType::kSigmoid) << value;
  }
  EXPECT_EQ(schedule("{\"__class__\": \"ScheduleType\", \"value\": 0}"), ScheduleType::kCosine);
  EXPECT_THROW(schedule("{\"__class__\": \"ScheduleType\", \"value\": 1}"), ConfigError);
}

TEST(CheckpointJson, ObjectsMayCarryTheirClassAndStandBelowArgs) {
  const std::string args =
      "{\"__class__\": \"argparse.Namespace\", \"name\": \"run\", \"model\": \"nested_unet\", \"vision_model\": "
      "\"nested_unet\", \"unet_config\": {\"__class__\": \"NestedUNetConfig\", \"temporal_dim\": 16.0, "
      "\"micro_conditioning\": null, \"inner_config\": {\"__class__\": \"UNetConfig\", \"masked_cross_attention\": "
      "0}}}";
  for (const std::string& text : {args, "{\"batch_num\": 3, \"args\": " + args + "}"}) {
    const Config config = config_from_json(text);
    ASSERT_EQ(config.model.levels.size(), 2u);
    EXPECT_EQ(config.model.levels[0].temporal_dim, 16);
    EXPECT_FALSE(config.model.levels[1].masked_cross_attention);
    EXPECT_TRUE(config.model.levels[0].skip_mid_blocks);
  }
}

TEST(CheckpointJson, UnknownKeysAreWarnings) {
  std::vector<std::string> warnings;
  const Config config = config_from_json(
      "{\"new_flag\": 1, \"lr\": 0.5, \"device\": \"tpu\", \"mixed_ratio\": null, \"unet_config\": {\"depth\": 3, "
      "\"resnet_config\": {\"x\": [1, {\"y\": 2}]}}}",
      &warnings);
  EXPECT_EQ(config.trainer.lr, 0.5);
  EXPECT_EQ(config.runtime.device, "auto");
  EXPECT_TRUE(mentions(warnings, "unknown key \"new_flag\""));
  EXPECT_TRUE(mentions(warnings, "unet_config.depth: unknown key"));
  EXPECT_TRUE(mentions(warnings, "unet_config.resnet_config.x: unknown key"));
  LoadRequest request;
  request.checkpoint_json = "{\"unet_config\": {\"depth\": 3}, \"surprise\": {}}";
  const LoadedConfig loaded = load(request);
  EXPECT_TRUE(mentions(loaded.warnings, "unet_config.depth: unknown key"));
  EXPECT_TRUE(mentions(loaded.warnings, "unknown key \"surprise\""));
}

TEST(CheckpointJson, WhatIsNoConfigIsAConfigError) {
  const std::string open(100000, '[');
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"args\":";
  std::string lists = "{\"unet_config\": {\"x\": " + std::string(1000, '[') + std::string(1000, ']') + "}}";
  std::string many = "{\"unet_config\": {";
  for (int i = 0; i < 2000; ++i) many += "\"k" + std::to_string(i) + "\": 1, ";
  many += "\"z\": 1}}";
  for (const std::string& text :
       {std::string(), std::string("{}"), std::string("[]"), std::string("3"), std::string("{\"args\": 3}"),
        std::string("{\"unet_config\": 3}"), std::string("{\"unet_config\": {\"nesting\": []}}"),
        std::string("{\"unet_config\": {}, \"model\": \"resnet\"}"),
        std::string("{\"unet_config\": {\"temporal_dim\": 1e400}}"), std::string("\xff\xfe"), open, objects, lists,
        many, std::string(17 << 20, ' ')}) {
    EXPECT_THROW(config_from_json(text), ConfigError) << text.substr(0, 60);
  }
}

}  // namespace
}  // namespace mdm
