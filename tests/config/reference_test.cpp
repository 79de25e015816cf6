// The reference's three model configs and our own versions of them, against what the reference's parser
// makes of them (tests/golden/config/*.args.json), and configs out of its checkpoints.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "config/support.h"
#include "mdm/config/config.h"

namespace mdm {
namespace {

using nlohmann::json;
using testing::mentions;
using testing::read_file;

json golden(const std::string& name) {
  return json::parse(read_file(std::filesystem::path(MDM_TEST_DATA) / "golden/config" / name));
}

// Python's 0 and 1 for booleans, and null for texts and lists that are empty.
bool same(const json& ours, const json& theirs) {
  if (theirs.is_null()) return ours.is_null() || ours == json("") || ours == json::array();
  if (theirs == json("None")) return ours == json("");
  if (ours.is_boolean() && theirs.is_number_integer()) return ours.get<bool>() == (theirs.get<int>() != 0);
  if (ours.is_number() && theirs.is_number()) return ours.get<double>() == theirs.get<double>();
  return ours == theirs;
}

// Every value of `theirs` is in `ours`; returns how many were compared.
int compare(const json& ours, const json& theirs, const std::string& path) {
  int count = 0;
  for (const auto& [key, value] : theirs.items()) {
    if (key == "__class__") continue;
    const std::string at = path + "." + key;
    if (at == ".diffusion_config.mixed_ratio" || at == ".diffusion_config.multi_res_weights") continue;
    if (!ours.contains(key)) {
      ADD_FAILURE() << at << " is missing";
    } else if (value.is_object()) {
      count += compare(ours.at(key), value, at);
    } else {
      EXPECT_TRUE(same(ours.at(key), value)) << at << ": " << ours.at(key) << " instead of " << value;
      ++count;
    }
  }
  return count;
}

int compare_sections(const Config& config, const json& theirs) {
  const json ours = json::parse(config_to_json(config));
  int count = 0;
  for (const char* section : {"unet_config", "diffusion_config", "reader_config"}) {
    count += compare(ours.at(section), theirs.at(section), std::string(".") + section);
  }
  EXPECT_EQ(ours.at("model"), theirs.at("model"));
  return count;
}

// The flat arguments of the trainer, and those that the sampler shares.
int compare_arguments(const Config& config, const json& theirs, const std::vector<std::string>& skipped = {}) {
  json ours = json::parse(config_to_json(config));
  ours["sample"].erase("batch_size");  // has a default of its own
  int count = 0;
  for (const char* section : {"trainer", "text", "sample"}) {
    for (const auto& [key, value] : ours.at(section).items()) {
      if (!theirs.contains(key) || std::find(skipped.begin(), skipped.end(), key) != skipped.end()) continue;
      EXPECT_TRUE(same(value, theirs.at(key)))
          << section << "." << key << ": " << value << " instead of " << theirs.at(key);
      ++count;
    }
  }
  return count;
}

struct Shipped {
  const char* name;
  size_t levels;
};
class ShippedConfigs : public ::testing::TestWithParam<Shipped> {};
INSTANTIATE_TEST_SUITE_P(All, ShippedConfigs,
                         ::testing::Values(Shipped{"cc12m_64x64", 1}, Shipped{"cc12m_256x256", 2},
                                           Shipped{"cc12m_1024x1024", 3}),
                         [](const auto& shipped) { return std::string(shipped.param.name); });

TEST_P(ShippedConfigs, OfTheReferenceHaveItsValues) {
  const auto reference = testing::reference_dir();
  if (!reference) GTEST_SKIP() << "the reference's data files are not here (MDM_REFERENCE_DIR)";
  const std::string name = GetParam().name;
  LoadRequest request;
  request.yaml_files = {*reference / "configs/models" / (name + ".yaml")};
  request.use = ConfigUse::kSample;
  const LoadedConfig loaded = load(request);
  const json theirs = golden(name + ".args.json");
  EXPECT_EQ(loaded.config.model.levels.size(), GetParam().levels);
  EXPECT_GE(compare_sections(loaded.config, theirs), 50);
  EXPECT_GE(compare_arguments(loaded.config, theirs), 25);
  EXPECT_EQ(loaded.config.runtime.precision == Precision::kBf16, theirs.at("fp16") == 1);
}

TEST_P(ShippedConfigs, OurOwnHaveTheSameModelAndTraining) {
  const std::string name = GetParam().name;
  LoadRequest request;
  request.yaml_files = {std::filesystem::path(MDM_PROJECT_DIR) / "configs/models" / (name + ".yaml")};
  request.use = ConfigUse::kTrain;
  const LoadedConfig loaded = load(request);
  EXPECT_TRUE(loaded.warnings.empty()) << loaded.warnings.front();
  EXPECT_TRUE(loaded.notes.empty()) << loaded.notes.front();
  json theirs = golden(name + ".args.json");
  theirs["unet_config"]["initialize_inner_with_pretrained"] = GetParam().levels > 1 ? json() : json("absent");
  if (GetParam().levels == 1) theirs["unet_config"].erase("initialize_inner_with_pretrained");
  EXPECT_GE(compare_sections(loaded.config, theirs), 50);
  // Folders, and files that only the reference's authors have, are the user's to name.
  EXPECT_GE(
      compare_arguments(loaded.config, theirs, {"output_dir", "vocab_file", "pretrained_vision_file", "sample_dir"}),
      20);
  EXPECT_EQ(loaded.config.sample.batch_size, SampleConfig().batch_size);
}

TEST_P(ShippedConfigs, CanBeBuilt) {
  const auto file =
      std::filesystem::path(MDM_PROJECT_DIR) / "configs/models" / (std::string(GetParam().name) + ".yaml");
  const auto levels = resolve(load_config({file}).model, 2048);
  ASSERT_EQ(levels.size(), GetParam().levels);
  for (const auto& level : levels) EXPECT_EQ(level.micros.size(), 1u);
}

TEST(DemoConfigs, CanBeBuiltForTextOfWidth32) {
  for (const auto& [name, count] : {std::pair<const char*, size_t>{"tiny_32", 1}, {"tiny_nested_64", 2}}) {
    const auto file = std::filesystem::path(MDM_PROJECT_DIR) / "configs/demo" / (std::string(name) + ".yaml");
    EXPECT_EQ(resolve(load_config({file}, {}, ConfigUse::kTrain).model, 32).size(), count) << name;
  }
}

TEST(ReferenceQuirks, OfThe256ConfigAreWarnedOf) {
  const auto reference = testing::reference_dir();
  if (!reference) GTEST_SKIP() << "the reference's data files are not here (MDM_REFERENCE_DIR)";
  LoadRequest request;
  request.yaml_files = {*reference / "configs/models/cc12m_256x256.yaml"};
  request.use = ConfigUse::kTrain;
  const LoadedConfig loaded = load(request);
  EXPECT_EQ(loaded.config.diffusion.mixed_ratio, (std::vector<double>{2, 1}));
  EXPECT_EQ(loaded.config.sample.output_dir, "/mnt/data/samples");
  EXPECT_EQ(loaded.config.model.levels[0].initialize_inner_with_pretrained, "");
  EXPECT_TRUE(mentions(loaded.warnings, "cc12m_256x256.yaml:108: mixed_ratio stands at the top level"));
  EXPECT_TRUE(mentions(loaded.warnings, "cc12m_256x256.yaml:5: \"sample-dir\" is read as \"sample_dir\""));
  EXPECT_TRUE(mentions(loaded.warnings,
                       "cc12m_256x256.yaml:40: unet_config.initialize_inner_with_pretrained: the "
                       "text \"None\" is read as unset"));
  EXPECT_TRUE(mentions(loaded.warnings, "cc12m_256x256.yaml:96: \"random_crop\" is already on line 84"));
}

TEST(ReferenceQuirks, OfThe1024ConfigAreWarnedOf) {
  const auto reference = testing::reference_dir();
  if (!reference) GTEST_SKIP() << "the reference's data files are not here (MDM_REFERENCE_DIR)";
  LoadRequest request;
  request.yaml_files = {*reference / "configs/models/cc12m_1024x1024.yaml"};
  request.use = ConfigUse::kSample;
  const LoadedConfig loaded = load(request);
  EXPECT_EQ(loaded.config.diffusion.multi_res_weights, (std::vector<double>{16, 4, 1}));
  EXPECT_TRUE(mentions(loaded.warnings, "cc12m_1024x1024.yaml:126: multi_res_weights stands at the top level"));
  EXPECT_TRUE(mentions(loaded.warnings, ":134: fp16 is read as precision: bf16"));
  EXPECT_TRUE(mentions(loaded.notes, "\"8rwvbg85tt\" is not used in sampling"));
  // The inner checkpoint that it names does not exist, which matters in training alone.
  request.use = ConfigUse::kTrain;
  try {
    load(request);
    FAIL() << "training with an inner checkpoint that is not there";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find(":42: unet_config.initialize_inner_with_pretrained: there is no file"),
              std::string::npos)
        << error.what();
  }
}

TEST(ReferenceQuirks, OfThe64ConfigAreWarnedOf) {
  const auto reference = testing::reference_dir();
  if (!reference) GTEST_SKIP() << "the reference's data files are not here (MDM_REFERENCE_DIR)";
  LoadRequest request;
  request.yaml_files = {*reference / "configs/models/cc12m_64x64.yaml"};
  const LoadedConfig loaded = load(request);
  // The first diffusion_config holds an enum value and a key that nobody knows; the second one counts.
  EXPECT_TRUE(mentions(loaded.warnings, "cc12m_64x64.yaml:65: \"diffusion_config\" is already on line 21"));
  EXPECT_TRUE(mentions(loaded.warnings, "cc12m_64x64.yaml:91: \"batch_size\" is already on line 14"));
  EXPECT_EQ(loaded.config.diffusion.sampler_config.loss_target_type, PredictionType::kDdpm);
  EXPECT_TRUE(mentions(loaded.notes, ":6: num_eval_batches has no effect"));
  EXPECT_TRUE(mentions(loaded.notes, ":9: reader_config_file has no effect"));
  EXPECT_EQ(loaded.config.runtime.device, "cuda");
}

TEST(CheckpointConfigs, OfTheReferenceHaveItsValues) {
  for (const auto& [name, levels] : {std::pair<const char*, size_t>{"unet", 1}, {"nested", 2}}) {
    const json theirs = golden(std::string("checkpoint_") + name + ".args.json");
    std::vector<std::string> warnings;
    const Config config = config_from_json(theirs.dump(), &warnings);
    EXPECT_TRUE(warnings.empty()) << warnings.front();
    EXPECT_EQ(config.model.levels.size(), levels);
    EXPECT_GE(compare_sections(config, theirs), 50);
    // Where pictures went and on which machine is not taken from a checkpoint.
    EXPECT_EQ(config.sample.output_dir, SampleConfig().output_dir);
    EXPECT_EQ(config.runtime.device, "auto");
    EXPECT_EQ(config.trainer.lr, theirs.at("lr").get<double>());
  }
}

}  // namespace
}  // namespace mdm
