// What can't be built is refused when the config is read, with a text that names the setting.
#include <gtest/gtest.h>

#include <functional>

#include "mdm/config/model_config.h"
#include "mdm/core/error.h"
#include "mdm/models/unet.h"

namespace mdm {
namespace {

UNetConfig small_level() {
  UNetConfig level;
  level.num_resnets_per_resolution = {1};
  level.temporal_dim = 32;
  level.attention_levels = {1};
  level.num_attention_layers = {1};
  level.resolution_channels = {8, 32};
  level.resnet_config.num_groups_norm = 8;
  return level;
}

ModelConfig small_nested() {
  ModelConfig model;
  UNetConfig outer = small_level();
  outer.attention_levels = {};
  outer.skip_mid_blocks = true;
  outer.skip_cond_emb = true;
  model.levels = {outer, small_level()};
  return model;
}

void expect_refused(const ModelConfig& model, const std::string& part, int64_t text_dim = 24) {
  try {
    make_model(model, text_dim);
    FAIL() << "was built; expected an error with: " << part;
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Resolve, RefusesWhatCannotBeBuilt) {
  using Change = std::function<void(UNetConfig&)>;
  const std::vector<std::pair<Change, std::string>> cases = {
      {[](UNetConfig& c) { c.resolution_channels = {}; }, "unet_config.resolution_channels: is empty"},
      {[](UNetConfig& c) {
         c.resolution_channels = {8, 0};
       },
       "0 is not in 1..65536"},
      {[](UNetConfig& c) {
         c.num_resnets_per_resolution = {1, 1, 1};
       },
       "has 3 entries, but resolution_channels has 2"},
      {[](UNetConfig& c) {
         c.num_resnets_per_resolution = {0, 1};
       },
       "0 is not in 1..1000"},
      {[](UNetConfig& c) { c.num_attention_layers = {-1}; }, "-1 is not in 0..1000"},
      {[](UNetConfig& c) { c.temporal_dim = 36; }, "temporal_dim: 36 is not a positive multiple of 8"},
      {[](UNetConfig& c) { c.resnet_config.num_groups_norm = 3; }, "3 groups don't divide"},
      {[](UNetConfig& c) { c.resnet_config.num_groups_norm = 0; }, "must be at least 1"},
      {[](UNetConfig& c) { c.resnet_config.dropout = 1.0; }, "is not in [0, 1)"},
      {[](UNetConfig& c) {
         c.resolution_channels = {8, 24};
       },
       "attention needs a multiple of 32"},
      {[](UNetConfig& c) { c.temporal_mode = true; }, "works only in a level that holds another one"},
      {[](UNetConfig& c) { c.skip_cond_emb = true; }, "skip_cond_emb: must be false in the innermost level"},
      {[](UNetConfig& c) { c.micro_conditioning = "scale"; }, "'scale' is not of the form label:default"},
      {[](UNetConfig& c) { c.micro_conditioning = "scale:64,scale:1"; }, "stands there twice"},
      {[](UNetConfig& c) { c.micro_conditioning = "scale:0"; }, "must not be 0"},
      {[](UNetConfig& c) { c.num_lm_head_layers = 1, c.conditioning_feature_proj_dim = 20; },
       "does not divide by the 8"},
  };
  for (const auto& [change, text] : cases) {
    ModelConfig model;
    model.levels = {small_level()};
    change(model.levels[0]);
    expect_refused(model, text);
  }
}

TEST(Resolve, RefusesLevelsThatDoNotFit) {
  ModelConfig model = small_nested();
  model.levels[0].temporal_dim = 40;
  expect_refused(model, "unet_config.temporal_dim: 40 differs from the innermost level's 32");
  model = small_nested();
  model.levels[0].attention_levels = {1};
  model.levels[1].conditioning_feature_proj_dim = 16;
  expect_refused(model, "attends to text of width 24, but the innermost level makes it 16 wide");
  model = small_nested();
  model.levels[1].resolution_channels = {8, 24};
  expect_refused(model, "unet_config.inner_config.resolution_channels");
}

TEST(Resolve, TextWidthIsHandedDownThroughProjections) {
  ModelConfig model = small_nested();
  model.levels[0].conditioning_feature_proj_dim = 24;
  model.levels[1].conditioning_feature_proj_dim = 16;
  const auto levels = resolve(model, 24);
  EXPECT_EQ(levels[0].text_dim, 24);
  EXPECT_EQ(levels[1].text_dim, 24);
  EXPECT_EQ(levels[1].conditioning_dim, 16);
  EXPECT_EQ(level_scales(model), (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(model.kind(), "nested_unet");
}

TEST(Resolve, AModelWithoutTextNeedsNoTextSettings) {
  ModelConfig model = small_nested();
  model.levels[1].skip_cond_emb = true;
  EXPECT_NO_THROW(make_model(model, -1));
}

}  // namespace
}  // namespace mdm
