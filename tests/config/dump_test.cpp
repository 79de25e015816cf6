// Dumped configs load again to the same values.
#include <gtest/gtest.h>

#include <random>

#include "config/describe.h"
#include "config/support.h"
#include "mdm/config/config.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using testing::from_yaml;

// A value for each field that differs from the default where it can, kept when it is accepted.
void randomize(Config& config, std::mt19937& random) {
  const auto pick = [&](int64_t bound) { return static_cast<int64_t>(random() % static_cast<uint32_t>(bound)); };
  const std::vector<std::string> texts = {
      "plain",    "with space", "null",    "~",         "None",      "'quoted'",
      "\"x\"",    "a: b # c",   "- dash",  "tab\there", "new\nline", "é ü 漢字 🙂",
      "\\back",   "[1, 2]",     "{a: b}",  "1e5",       "yes",       "trailing ",
      " leading", "#hash",      "&a *b !c"};
  for (const auto& group : settings::describe(config)) {
    for (const auto& field : group.fields) {
      std::vector<std::string> values = {std::to_string(pick(100)),
                                         std::to_string(pick(1000)) + "e-4",
                                         "true",
                                         "false",
                                         "1," + std::to_string(1 + pick(9)),
                                         "3:" + std::to_string(pick(9)),
                                         "",
                                         texts[static_cast<size_t>(pick(static_cast<int64_t>(texts.size())))]};
      if (const auto* choice = std::get_if<settings::TextRef>(&field.target)) values = choice->choices;
      if (field.name == "pad") values.push_back("fixed:7");
      if (field.name == "device" || field.name == "loglevel" || field.name == "micro_conditioning" ||
          field.name == "endpoint_url" || field.name == "no_use_residual") {
        continue;  // these are checked beyond their type
      }
      for (int tries = 0; tries < 3; ++tries) {
        const auto& text = values[static_cast<size_t>(pick(static_cast<int64_t>(values.size())))];
        field.assign(settings::scalar(text, {}));
      }
    }
  }
  DiffusionConfig& diffusion = config.diffusion;
  diffusion.mixed_ratio.resize(config.model.levels.size() > 1 && pick(2) ? config.model.levels.size() : 0, 1.5);
  diffusion.multi_res_weights.clear();
  config.diffusion.sampler_config.sigmoid_start = -3;
  config.diffusion.sampler_config.sigmoid_end = 3.5;
  config.diffusion.sampler_config.beta_end = 0.02;
  if (diffusion.sampler_config.rescale_signal == 0.0) diffusion.sampler_config.rescale_signal.reset();
  config.sample.guidance_start = 0.25;
  config.sample.guidance_end = 0.75;
  if (config.sample.sampler == SamplerKind::kDdim) {
    config.sample.ddim_eta = config.sample.ddim_eta.value_or(0);
  } else {
    config.sample.ddim_eta.reset();
  }
  if (config.sample.negative_prompts.size() > 1) config.sample.negative_prompts.resize(1);
  config.text.categorical_conditioning = config.text.kind == TextKind::kClass;
  config.text.use_precomputed_text_embeddings = config.text.kind == TextKind::kPrecomputed;
}

TEST(Dump, LoadsAgainToTheSameValues) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    Config config;
    config.model = settings::default_model(1 + round % settings::kMaxLevels);
    randomize(config, random);
    const std::string yaml = dump_yaml(config);
    const LoadedConfig again = from_yaml(yaml);
    ASSERT_EQ(config_to_json(again.config), config_to_json(config)) << yaml;
    ASSERT_EQ(config_to_json(config_from_json(config_to_json(config))), config_to_json(config));
  }
}

TEST(Dump, SaysWhereEachValueComesFrom) {
  const LoadedConfig loaded = from_yaml("unet_config:\n  temporal_dim: 16\n", {{"lr", "0.5"}});
  const std::string yaml = dump_yaml(loaded.config, Section::kAll, &loaded.origins);
  EXPECT_NE(yaml.find("  temporal_dim: 16  # test.yaml:2\n"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("\nlr: 0.5  # flag --lr\n"), std::string::npos);
  EXPECT_NE(yaml.find("\nlog_freq: 100  # default\n"), std::string::npos);
  EXPECT_EQ(config_to_json(from_yaml(yaml).config), config_to_json(loaded.config));
}

TEST(Dump, HoldsOnlyTheSectionsAskedFor) {
  const std::string yaml = dump_yaml(Config(), Section::kReader | Section::kRuntime);
  EXPECT_NE(yaml.find("reader_config:"), std::string::npos);
  EXPECT_NE(yaml.find("\nthreads: 0\n"), std::string::npos);
  for (const char* absent : {"unet_config", "model:", "diffusion_config", "text_model", "lr:", "prompt"}) {
    EXPECT_EQ(yaml.find(absent), std::string::npos) << absent;
  }
}

TEST(Dump, SettingsThatSectionsShareAreWrittenOnceOrInTheirSections) {
  Config config;
  config.trainer.seed = config.sample.seed = 5;
  config.trainer.batch_size = 8;
  config.sample.batch_size = 2;
  const std::string yaml = dump_yaml(config, Section::kTrainer | Section::kSample);
  EXPECT_NE(yaml.find("sample:\n  batch_size: 2\n"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("trainer:\n  batch_size: 8\n"), std::string::npos) << yaml;
  EXPECT_EQ(yaml.find("seed", yaml.find("seed") + 1), std::string::npos) << yaml;
  const Config again = from_yaml(yaml).config;
  EXPECT_EQ(again.trainer.batch_size, 8);
  EXPECT_EQ(again.sample.batch_size, 2);
  EXPECT_EQ(again.sample.seed, 5);
}

TEST(Dump, OfSomeSectionsLeavesTheOthersAsTheyWere) {
  Config config;
  config.trainer.output_dir = "runs";
  config.trainer.batch_size = 9;
  config.trainer.pretrained_vision_file = "start.pth";
  const Config again = from_yaml(dump_yaml(config, Section::kTrainer)).config;
  EXPECT_EQ(config_to_json(again), config_to_json(config));
}

TEST(Table, GivesTheNamesOfChoices) {
  const auto check = [](const char* key, const auto& member, const auto& values) {
    for (const auto value : values) {
      const std::string name = choice_name(value);
      EXPECT_FALSE(name.empty()) << key;
      const Config config = from_yaml("", {{key, name}}).config;
      EXPECT_EQ(member(config), value) << name;
      const std::string dump = dump_yaml(config);
      const bool quoted = name == "NONE";  // else it would be YAML's way to say unset
      EXPECT_NE(dump.find(concat("\n", key, ": ", quoted ? "\"" : "", name, quoted ? "\"\n" : "\n")),
                std::string::npos);
    }
  };
  check(
      "sampler", [](const Config& c) { return c.sample.sampler; },
      std::vector{SamplerKind::kDdpm, SamplerKind::kDdim, SamplerKind::kEuler, SamplerKind::kHeun,
                  SamplerKind::kDpmSolver2M, SamplerKind::kDpmSolver2MSde, SamplerKind::kUniPc});
  check(
      "timestep_spacing", [](const Config& c) { return c.sample.timestep_spacing; },
      std::vector{TimestepSpacing::kReference, TimestepSpacing::kLeading, TimestepSpacing::kTrailing,
                  TimestepSpacing::kLinspace});
  check(
      "threshold", [](const Config& c) { return c.sample.threshold.value(); },
      std::vector{ThresholdType::kNone, ThresholdType::kClip, ThresholdType::kDynamic, ThresholdType::kDynamicIf});
  check(
      "precision", [](const Config& c) { return c.runtime.precision; },
      std::vector{Precision::kFp32, Precision::kBf16});
  EXPECT_EQ(choice_name(TimestepSpacing::kReference), "reference");  // not the other name, matryoshka
  EXPECT_EQ(choice_name(ThresholdType::kDynamicIf), "DYNAMIC_IF");
}

TEST(Table, NamesAreUniqueAndExplained) {
  Config config;
  config.model = settings::default_model(2);
  size_t count = 0;
  for (const auto& group : settings::describe(config)) {
    std::vector<std::string> names;
    for (const auto& field : group.fields) {
      EXPECT_EQ(std::count(names.begin(), names.end(), field.name), 0) << group.path << "." << field.name;
      names.push_back(field.name);
      EXPECT_GE(field.doc.size(), 10u) << group.path << "." << field.name;
      EXPECT_EQ(field.assign(settings::scalar("\x02", {})).empty(), field.type().find("text") == 0) << field.name;
      ++count;
    }
  }
  EXPECT_GE(count, 130u);
}

}  // namespace
}  // namespace mdm
