// Reading YAML and flags into a Config: values, levels, order of precedence, and the text of every error.
#include <gtest/gtest.h>

#include "config/names.h"
#include "config/support.h"
#include "mdm/config/config.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using testing::from_yaml;
using testing::mentions;
using testing::temporary_file;
using testing::yaml_error;

void expect_error(const std::string& error, const std::vector<std::string>& parts) {
  EXPECT_NE(error, "") << "no error";
  for (const auto& part : parts) EXPECT_NE(error.find(part), std::string::npos) << "no '" << part << "' in: " << error;
}

TEST(Scalars, AreReadInAllTheirForms) {
  const Config config = from_yaml(
                            "lr: 5e-5\n"
                            "warmup_steps: 10_000\n"
                            "num_training_steps: 1e6\n"
                            "gradient_clip_norm: +2\n"
                            "use_adamw: yes\n"
                            "grid: False\n"
                            "gallery: 0\n"
                            "metadata: on\n"
                            "ddim_eta: None\n"
                            "threshold: dynamic (DeepFloyd)\n"
                            "timestep_spacing: Matryoshka\n"
                            "pad: fixed:32\n"
                            "prompt: ['a cat', \"null\", 7]\n"
                            "negative_prompt: blurry, dark\n"
                            "diffusion_config: {sampler_config: {schedule_type: deepfloyd, rescale_signal: ~}}\n"
                            "unet_config:\n"
                            "  num_resnets_per_resolution: \"2\"\n"
                            "  resolution_channels: \"8, 16\"\n"
                            "  attention_levels: \"\"\n"
                            "  num_attention_layers: [0, 1]\n"
                            "  temporal_dim: null\n"
                            "  micro_conditioning: scale:64,watermark_score:0\n")
                            .config;
  EXPECT_EQ(config.trainer.lr, 5e-5);
  EXPECT_EQ(config.trainer.warmup_steps, 10000);
  EXPECT_EQ(config.trainer.num_training_steps, 1000000);
  EXPECT_EQ(config.trainer.gradient_clip_norm, 2);
  EXPECT_TRUE(config.trainer.use_adamw);
  EXPECT_FALSE(config.sample.grid);
  EXPECT_FALSE(config.sample.gallery);
  EXPECT_TRUE(config.sample.metadata);
  EXPECT_FALSE(config.sample.ddim_eta.has_value());
  EXPECT_EQ(config.sample.threshold, ThresholdType::kDynamicIf);
  EXPECT_EQ(config.sample.timestep_spacing, TimestepSpacing::kReference);
  EXPECT_EQ(config.text.pad.mode, PadPolicy::Mode::kFixed);
  EXPECT_EQ(config.text.pad.length, 32);
  EXPECT_EQ(config.sample.prompts, (std::vector<std::string>{"a cat", "null", "7"}));
  EXPECT_EQ(config.sample.negative_prompts, (std::vector<std::string>{"blurry, dark"}));
  EXPECT_EQ(config.diffusion.sampler_config.schedule_type, ScheduleType::kDeepFloyd);
  EXPECT_FALSE(config.diffusion.sampler_config.rescale_signal.has_value());
  const UNetConfig& unet = config.model.levels.at(0);
  EXPECT_EQ(unet.num_resnets_per_resolution, std::vector<int64_t>{2});
  EXPECT_EQ(unet.resolution_channels, (std::vector<int64_t>{8, 16}));
  EXPECT_TRUE(unet.attention_levels.empty());
  EXPECT_EQ(unet.num_attention_layers, (std::vector<int64_t>{0, 1}));
  EXPECT_FALSE(unet.temporal_dim.has_value());
  EXPECT_EQ(parse_micro_conditioning(unet.micro_conditioning).size(), 2u);
}

TEST(Scalars, NoneMeansUnsetWithAWarning) {
  const LoadedConfig loaded = from_yaml("ddim_eta: None\nvocab_file: None\nthreshold: none\nprompt: None\n");
  EXPECT_FALSE(loaded.config.sample.ddim_eta.has_value());
  EXPECT_EQ(loaded.config.text.vocab_file, "");
  EXPECT_TRUE(mentions(loaded.warnings, "test.yaml:1: ddim_eta: the text \"None\" is read as unset"));
  EXPECT_TRUE(mentions(loaded.warnings, "test.yaml:2: vocab_file: the text \"None\" is read as unset"));
  // Here it is a choice, and here a text like any other.
  EXPECT_EQ(loaded.config.sample.threshold, ThresholdType::kNone);
  EXPECT_EQ(loaded.config.sample.prompts, std::vector<std::string>{"None"});
  EXPECT_EQ(loaded.warnings.size(), 2u);
}

TEST(Scalars, RatiosAreReadWithColonsCommasAndAsLists) {
  for (const char* text : {"2:1", "'2:1'", "\"2, 1\"", "[2, 1]", "[2.0, 1]"}) {
    const std::string yaml =
        "unet_config: {inner_config: {nesting: true}}\ndiffusion_config: {mixed_ratio: " + std::string(text) + "}\n";
    EXPECT_EQ(from_yaml(yaml).config.diffusion.mixed_ratio, (std::vector<double>{2, 1})) << text;
  }
}

TEST(Scalars, OfTheWrongTypeAreErrorsWithPlaceAndChoices) {
  expect_error(yaml_error("a: 1\nlr: fast\n"), {"test.yaml:2: lr: \"fast\" is not a finite number",
                                                "allowed: 0 to 1e+06", "test.yaml:1: unknown key \"a\""});
  expect_error(yaml_error("lr: .inf\n"), {"\".inf\" is not a finite number"});
  expect_error(yaml_error("lr: nan\n"), {"not a finite number"});
  expect_error(yaml_error("lr: 1e999\n"), {"not a finite number"});
  expect_error(yaml_error("warmup_steps: 2.5\n"), {"test.yaml:1: warmup_steps: \"2.5\" is not an integer"});
  expect_error(yaml_error("warmup_steps: .inf\n"), {"not an integer"});
  expect_error(yaml_error("warmup_steps: 1_\n"), {"not an integer"});
  expect_error(yaml_error("warmup_steps: 99999999999999999999999\n"), {"not an integer"});
  expect_error(yaml_error("warmup_steps: [1]\n"), {"a list is not an integer"});
  expect_error(yaml_error("warmup_steps: -1\n"), {"-1 is out of range; allowed: 0 to 1e+09"});
  expect_error(yaml_error("warmup_steps:\n"), {"nothing is not an integer"});
  expect_error(yaml_error("use_adamw: maybe\n"), {"test.yaml:1: use_adamw: \"maybe\" is neither yes nor no"});
  expect_error(yaml_error("text_model: {a: 1}\n"), {"text_model: a group of keys is not a text"});
  expect_error(yaml_error("pad: fixed:0\n"), {"pad: \"fixed:0\" is not one of pair|batch|fixed:N"});
  expect_error(yaml_error("strength: 0\n"), {"strength: 0 is out of range; allowed: 0 (excluded) to 1"});
  expect_error(yaml_error("unet_config:\n  resolution_channels: [8, x]\n"),
               {"test.yaml:2: unet_config.resolution_channels: \"x\" is not an integer"});
  expect_error(yaml_error("unet_config:\n  resolution_channels: []\n"), {"must hold at least one number"});
  expect_error(yaml_error("unet_config:\n  resnet_config: 5\n"), {"unet_config.resnet_config: must hold keys"});
  expect_error(yaml_error("unet_config: 5\n"), {"test.yaml:1: unet_config: must hold keys"});
  expect_error(yaml_error("diffusion_config:\n  sampler_config:\n    prediction_type: V_PREDICTON\n"),
               {"test.yaml:3: diffusion_config.sampler_config.prediction_type: \"V_PREDICTON\" is not one of "
                "DDPM|DDIM|V_PREDICTION|X0; did you mean V_PREDICTION?"});
}

TEST(Keys, ThatNobodyKnowsAreErrorsWithTheNearestName) {
  expect_error(yaml_error("learning_rat: 1\nbatch_sise: 2\n"), {"test.yaml:2: unknown key \"batch_sise\"; did you mean "
                                                                "\"batch_size\"?"});
  expect_error(yaml_error("unet_config:\n  resolution_chanels: 8\n"),
               {"test.yaml:2: unet_config.resolution_chanels: unknown key; did you mean \"resolution_channels\"?"});
  expect_error(yaml_error("num_diffusion_steps: 8\n"), {"it belongs under diffusion_config.sampler_config"});
  expect_error(yaml_error("unet_config:\n  dropout: 0.1\n"), {"it belongs under unet_config.resnet_config"});
  expect_error(
      yaml_error("unet_config:\n  skip_normalization: true\n"),
      {"unet_config.skip_normalization: unknown key; it has a meaning only in a level that holds an inner_config"});
  expect_error(yaml_error("sample:\n  promt: a\n"), {"test.yaml:2: promt: unknown key; did you mean \"prompt\"?"});
  expect_error(yaml_error("\"a\\e[31mb\": 1\n"), {"a\\x1b[31mb"});
}

TEST(Keys, ThatNoOneReadsHaveNoEffect) {
  const LoadedConfig loaded = from_yaml(
      "name: x\nmetrics: fid\nport: 1\navg_lm_steps: 0\nprediction_length: 129\nuse_lm_mask: 1\n"
      "dataset_config: a\nnum_eval_batches: 5\nreader_config_file: b\ntest_file_list: c\nmin_examples: 9\n"
      "random_low_noise: true\ndiffusion_config: {sampler_config: {predict_variances: false}}\n");
  EXPECT_EQ(loaded.notes.size(), 13u);
  EXPECT_TRUE(loaded.warnings.empty());
}

TEST(Keys, OfSectionsMayStandAtTheTopLevelOrInTheSection) {
  const Config config =
      from_yaml("seed: 5\nbatch_size: 3\ntrainer:\n  batch_size: 16\nsample: {model_file: a.pth}\n").config;
  EXPECT_EQ(config.trainer.seed, 5);
  EXPECT_EQ(config.sample.seed, 5);
  EXPECT_EQ(config.sample.batch_size, 3);
  EXPECT_EQ(config.trainer.batch_size, 16);
  EXPECT_EQ(config.sample.checkpoint, "a.pth");
}

TEST(Keys, WithSeveralNamesTakeTheStrongest) {
  const Config config = from_yaml("pretrained_vision_file: a.pth\noutput_dir: out\n").config;
  EXPECT_EQ(config.sample.checkpoint, "a.pth");
  EXPECT_EQ(config.trainer.pretrained_vision_file, "a.pth");
  EXPECT_EQ(config.sample.output_dir, "out");
  const Config both =
      from_yaml("checkpoint: c\nmodel_file: b\npretrained_vision_file: a\nsample_dir: s\noutput_dir: o").config;
  EXPECT_EQ(both.sample.checkpoint, "c");
  EXPECT_EQ(both.sample.output_dir, "s");
  EXPECT_EQ(both.trainer.output_dir, "o");
}

TEST(Keys, FileAndCheckpointSettingsOfTheReferenceAreUnderstood) {
  const LoadedConfig loaded = from_yaml("fp16: 1\nmixed_ratio: '2:1'\nunet_config: {inner_config: {}}\n");
  EXPECT_EQ(loaded.config.runtime.precision, Precision::kBf16);
  EXPECT_TRUE(mentions(loaded.warnings, "fp16 is read as precision: bf16"));
  EXPECT_TRUE(mentions(loaded.warnings, "mixed_ratio stands at the top level; read as diffusion_config.mixed_ratio"));
  EXPECT_EQ(from_yaml("fp16: 1\nprecision: fp32\n").config.runtime.precision, Precision::kFp32);
  EXPECT_EQ(from_yaml("fp16: 0\n").config.runtime.precision, Precision::kFp32);
  expect_error(yaml_error("fp16: half\n"), {"test.yaml:1: fp16: must be 0 or 1"});
  const LoadedConfig twice =
      from_yaml("mixed_ratio: '5:1'\ndiffusion_config: {mixed_ratio: 3:1}\nunet_config: {inner_config: {}}\n");
  EXPECT_EQ(twice.config.diffusion.mixed_ratio, (std::vector<double>{3, 1}));
  EXPECT_TRUE(mentions(twice.warnings, "that under diffusion_config counts"));
}

TEST(Duplicates, TheLastCountsAndTheFirstIsNotLookedAt) {
  const LoadedConfig loaded = from_yaml(
      "lr: nonsense\n"
      "diffusion_config:\n"
      "  sampler_config: {loss_target_type: HA_STYLE, predict_variances: false}\n"
      "  no_such_key: [1, 2]\n"
      "lr: 0.5\n"
      "diffusion_config:\n"
      "  sampler_config: {num_diffusion_steps: 7, num_diffusion_steps: 9}\n");
  EXPECT_EQ(loaded.config.trainer.lr, 0.5);
  EXPECT_EQ(loaded.config.diffusion.sampler_config.num_diffusion_steps, 9);
  EXPECT_FALSE(loaded.config.diffusion.sampler_config.loss_target_type.has_value());
  EXPECT_TRUE(mentions(loaded.warnings, "test.yaml:5: \"lr\" is already on line 1; the last one counts"));
  EXPECT_TRUE(mentions(loaded.warnings, "test.yaml:6: \"diffusion_config\" is already on line 2"));
  EXPECT_TRUE(mentions(loaded.warnings, "\"num_diffusion_steps\" is already on line 7"));
}

TEST(Duplicates, DashAndUnderscoreAreTheSameKey) {
  const LoadedConfig loaded = from_yaml("sample-dir: a\nsample_dir: b\n");
  EXPECT_EQ(loaded.config.sample.output_dir, "b");
  EXPECT_TRUE(mentions(loaded.warnings, "\"sample_dir\" is already on line 1"));
}

TEST(Levels, DefaultsDependOnThePlace) {
  const Config plain = from_yaml("").config;
  ASSERT_EQ(plain.model.levels.size(), 1u);
  EXPECT_FALSE(plain.model.levels[0].skip_mid_blocks);
  EXPECT_FALSE(plain.model.levels[0].nesting);
  const Config nested = from_yaml("model: NESTED2_UNET\nunet_config: {inner_config: {inner_config: {}}}\n").config;
  ASSERT_EQ(nested.model.levels.size(), 3u);
  EXPECT_EQ(nested.model.kind(), "nested2_unet");
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(nested.model.levels[i].skip_mid_blocks, i < 2) << i;
    EXPECT_EQ(nested.model.levels[i].skip_cond_emb, i < 2) << i;
    EXPECT_EQ(nested.model.levels[i].nesting, i > 0) << i;
  }
}

TEST(Levels, ComeFromTheKindAndFromTheNesting) {
  EXPECT_EQ(from_yaml("unet_config: {inner_config: {inner_config: {nesting: true}}}\n").config.model.levels.size(), 3u);
  EXPECT_EQ(from_yaml("vision_model: nested_unet\nunet_config: {inner_config: {}}\n").config.model.levels.size(), 2u);
  EXPECT_EQ(from_yaml("model: nested4_unet\n").config.model.levels.size(), 5u);
  EXPECT_EQ(from_yaml("model: unet\nunet_config: {inner_config: null}\n").config.model.levels.size(), 1u);
  expect_error(yaml_error("model: unet\nunet_config: {inner_config: {}}\n"),
               {"test.yaml:1: model: unet needs 0 inner_config", "found 1", "that many make a nested_unet"});
  expect_error(yaml_error("unet_config: {temporal_dim: 8}\nmodel: nested2_unet\n"),
               {"test.yaml:2: model: nested2_unet needs 2 inner_config", "found 0"});
  expect_error(yaml_error("model: nested_unte\n"),
               {"\"nested_unte\" is not one of unet,", "did you mean nested_unet?"});
  std::string deep = "unet_config:\n";
  for (int i = 1; i <= 5; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "inner_config:\n";
  deep += "      nesting: true\n";
  expect_error(yaml_error(deep), {"5 inner_config; at most 4"});
  expect_error(yaml_error("model: nested_unet\n" + deep), {"found 5"});
  const LoadedConfig differing = from_yaml("model: unet\nvision_model: nested_unet\n");
  EXPECT_EQ(differing.config.model.levels.size(), 1u);
  EXPECT_TRUE(mentions(differing.warnings, "vision_model is \"nested_unet\" but model is \"unet\"; model counts"));
}

TEST(Levels, TheFlagForTheKindMustFitTheFile) {
  EXPECT_EQ(from_yaml("", {{"model", "nested_unet"}}).config.model.levels.size(), 2u);
  expect_error(yaml_error("model: nested_unet\nunet_config: {inner_config: {}}\n", {{"vision-model", "unet"}}),
               {"flag --vision-model: model: unet needs 0 inner_config", "found 1"});
}

TEST(Precedence, DefaultsThenFilesInOrderThenFlagsInOrder) {
  const auto first =
      temporary_file("first.yaml", "lr: 1\nwarmup_steps: 1\nseed: 1\nunet_config: {temporal_dim: 8}\nprompt: [a, b]\n");
  const auto second = temporary_file("second.yaml", "warmup_steps: 2\nseed: 2\nunet_config: {nesting: true}\n");
  LoadRequest request;
  request.yaml_files = {first, second};
  request.overrides = {{"seed", "3"}, {"trainer.seed", "4"}, {"prompt", "c"}, {"prompt", "d,e"}};
  const LoadedConfig loaded = load(request);
  EXPECT_EQ(loaded.config.trainer.lr, 1);
  EXPECT_EQ(loaded.config.trainer.warmup_steps, 2);
  EXPECT_EQ(loaded.config.sample.seed, 3);
  EXPECT_EQ(loaded.config.trainer.seed, 4);
  EXPECT_EQ(loaded.config.model.levels[0].temporal_dim, 8);
  EXPECT_TRUE(loaded.config.model.levels[0].nesting);
  EXPECT_EQ(loaded.config.sample.prompts, (std::vector<std::string>{"c", "d,e"}));
  EXPECT_EQ(loaded.origins.at("trainer.lr"), first.string() + ":1");
  EXPECT_EQ(loaded.origins.at("trainer.warmup_steps"), second.string() + ":1");
  EXPECT_EQ(loaded.origins.at("trainer.seed"), "flag --trainer.seed");
  EXPECT_EQ(loaded.origins.count("trainer.log_freq"), 0u);
  EXPECT_THROW(load_config({"/no/such/file.yaml"}), ConfigError);
  EXPECT_THROW(load_config({std::filesystem::temp_directory_path()}), ConfigError);
}

TEST(Precedence, ACheckpointsConfigLiesBelowFilesAndGivesOnlyItsOwnPart) {
  Config inside;
  inside.model.levels[0].temporal_dim = 24;
  inside.model.levels[0].micro_conditioning = "scale:8";
  inside.trainer.lr = 0.25;
  inside.trainer.resume_from_ema = inside.trainer.allow_config_change = true;
  inside.sample.seed = 77;
  inside.sample.guidance_scale = 2.5;
  inside.sample.num_inference_steps = 33;
  inside.runtime.threads = 3;
  inside.runtime.precision = Precision::kBf16;
  inside.runtime.device = "cuda:3";
  inside.runtime.cuda_graphs = false;
  inside.text.text_model = "elsewhere";
  LoadRequest request;
  request.checkpoint_json = config_to_json(inside);
  request.overrides = {{"temporal_dim", "32"}};
  request.use = ConfigUse::kSample;
  LoadedConfig loaded = load(request);
  EXPECT_EQ(loaded.config.model.levels[0].temporal_dim, 32);
  EXPECT_EQ(loaded.config.model.levels[0].micro_conditioning, "scale:8");
  EXPECT_EQ(loaded.config.text.text_model, "elsewhere");
  EXPECT_EQ(loaded.config.trainer.lr, TrainerConfig().lr);
  EXPECT_EQ(loaded.config.sample.seed, -1);
  EXPECT_EQ(loaded.config.sample.guidance_scale, 2.5) << "the numbers that its pictures are drawn with";
  EXPECT_EQ(loaded.config.sample.num_inference_steps, 33);
  EXPECT_EQ(loaded.config.runtime.threads, 0);
  EXPECT_EQ(loaded.config.runtime.precision, Precision::kFp32);
  request.use = ConfigUse::kTrain;
  const Config resumed = load(request).config;
  EXPECT_EQ(resumed.trainer.lr, 0.25);
  EXPECT_EQ(resumed.sample.seed, 77) << "for the checkpoints to come";
  EXPECT_EQ(resumed.runtime.threads, 3);
  EXPECT_EQ(resumed.runtime.precision, Precision::kBf16);
  EXPECT_EQ(resumed.runtime.device, "auto") << "of the machine";
  EXPECT_TRUE(resumed.runtime.cuda_graphs) << "likewise";
  EXPECT_FALSE(resumed.trainer.resume_from_ema) << "meant for one start";
  EXPECT_FALSE(resumed.trainer.allow_config_change);
}

TEST(Precedence, ATrainingThatGoesOnNeedsNoFilesOfItsStart) {
  LoadRequest request;
  request.use = ConfigUse::kTrain;
  request.yaml_files = {temporary_file("nested.yaml",
                                       "model: nested_unet\nunet_config: {resolution_channels: [32], "
                                       "initialize_inner_with_pretrained: gone.pth, "
                                       "inner_config: {resolution_channels: [32]}}\n")};
  EXPECT_THROW(load(request), ConfigError);
  request.goes_on = true;
  EXPECT_NO_THROW(load(request));
}

TEST(Precedence, AFileForAnotherKindOfModelReplacesTheCheckpointsModelWhole) {
  Config nested;
  nested.model.levels.resize(2);
  nested.model.levels[0].masked_cross_attention = 0;
  nested.diffusion.mixed_ratio = {2, 1};
  nested.reader.image_size = 256;
  LoadRequest request;
  request.checkpoint_json = config_to_json(nested);
  request.yaml_files = {temporary_file("other.yaml", "model: unet\nunet_config: {resolution_channels: [32]}\n")};
  const Config config = load(request).config;
  EXPECT_EQ(config.model.levels.size(), 1u);
  EXPECT_EQ(config.model.levels[0].masked_cross_attention, UNetConfig().masked_cross_attention);
  EXPECT_TRUE(config.diffusion.mixed_ratio.empty());
  EXPECT_EQ(config.reader.image_size, 256);
  // A second file may then change a part of the first one's model.
  request.yaml_files.push_back(temporary_file("more.yaml", "model: unet\nunet_config: {num_lm_head_layers: 2}\n"));
  EXPECT_EQ(load(request).config.model.levels[0].resolution_channels, std::vector<int64_t>{32});
}

TEST(FilesNamedInAFile, AreThoseOfTheWorkingDirectoryElseThoseBesideIt) {
  const auto vocabulary = temporary_file("beside.vocab", "x");
  const auto folder = vocabulary.parent_path();
  std::filesystem::create_directories(folder / "encoder");
  LoadRequest request;
  request.yaml_files = {temporary_file("named.yaml",
                                       "text: {text_model: encoder}\n"
                                       "vocab_file: beside.vocab\n"
                                       "model_file: not_there.pth\n"
                                       "init_image: " +
                                           vocabulary.string() +
                                           "\n"
                                           "unet_config:\n  inner_config: {}\n"
                                           "  initialize_inner_with_pretrained: ./beside.vocab\n")};
  Config config = load(request).config;
  EXPECT_EQ(config.text.text_model, (folder / "encoder").string());
  EXPECT_EQ(config.text.vocab_file, vocabulary.string());
  EXPECT_EQ(config.sample.checkpoint, "not_there.pth");  // as written, so that messages name that
  EXPECT_EQ(config.sample.init_image, vocabulary.string());
  EXPECT_EQ(config.model.levels[0].initialize_inner_with_pretrained, vocabulary.string());

  const auto before = std::filesystem::current_path();
  std::filesystem::create_directories(folder / "here" / "encoder");
  std::filesystem::current_path(folder / "here");
  config = load(request).config;
  request.overrides = {{"vocab_file", "beside.vocab"}};
  const Config by_flag = load(request).config;
  std::filesystem::current_path(before);
  EXPECT_EQ(config.text.text_model, "encoder");
  EXPECT_EQ(config.text.vocab_file, vocabulary.string());
  EXPECT_EQ(by_flag.text.vocab_file, "beside.vocab");  // the command line knows only the working directory
}

TEST(Flags, AreFoundByPathByLeafAndWithDashes) {
  const std::string nested = "unet_config: {inner_config: {temporal_dim: 8}}\n";
  const Overrides overrides = {{"unet-config.micro-conditioning", "scale:64"},
                               {"num_channels", "4"},
                               {"inner_config.temporal_dim", "16"},
                               {"sampler_config.num_diffusion_steps", "11"},
                               {"beta-end", "0.5"},
                               {"norandom_crop", "false"},
                               {"reader_config.nopad_to_max_length", "true"},
                               {"no_grid", "yes"},
                               {"test-file-list", "x.tsv"},
                               {"cfg-weight", "3"}};
  const Config config = from_yaml(nested, overrides).config;
  EXPECT_EQ(config.model.levels[0].micro_conditioning, "scale:64");
  EXPECT_EQ(config.model.levels[0].resnet_config.num_channels, 4);  // the outermost of those with this name
  EXPECT_EQ(config.model.levels[1].resnet_config.num_channels, -1);
  EXPECT_EQ(config.model.levels[1].temporal_dim, 16);
  EXPECT_EQ(config.diffusion.sampler_config.num_diffusion_steps, 11);
  EXPECT_EQ(config.diffusion.sampler_config.beta_end, 0.5);
  EXPECT_TRUE(config.reader.random_crop);
  EXPECT_FALSE(config.reader.pad_to_max_length);
  EXPECT_FALSE(config.sample.grid);
  EXPECT_EQ(config.sample.prompts_file, "x.tsv");
  EXPECT_EQ(config.sample.guidance_scale, 3);
}

TEST(Flags, ThatAreWrongNameThemselvesAndTheNearest) {
  expect_error(yaml_error("", {{"guidance_scal", "3"}}), {"flag --guidance_scal",
                                                          "is no setting; did you mean "
                                                          "guidance_scale?"});
  expect_error(yaml_error("", {{"lr", "fast"}}), {"flag --lr: lr: \"fast\" is not a finite number"});
  expect_error(yaml_error("", {{"resnet_config", "1"}}), {"is a group of settings; set them one by one"});
  expect_error(yaml_error("", {{"prompt", "\xff"}}), {"flag --prompt: prompt: \"\\xff\" is not valid UTF-8"});
  expect_error(yaml_error("", {{"text_model", "a\xc3"}}), {"is not valid UTF-8"});
  EXPECT_TRUE(mentions(from_yaml("", {{"port", "1"}}).warnings, "flag --port has no effect"));
}

TEST(Flags, ThatMayMeanSeveralSettingsAreRefusedWithAllOfThem) {
  int64_t value = 0;
  using settings::Field;
  const std::vector<settings::Group> groups = {
      {"a", "A", Section::kReader, false, {Field("size", &value, "x"), Field("other", &value, "x")}},
      {"b.c", "B", Section::kReader, false, {Field("size", &value, "x")}},
      {"a.inner_config", "A", Section::kReader, false, {Field("other", &value, "x")}}};
  try {
    settings::find_setting("size", groups);
    FAIL() << "ambiguous";
  } catch (const ConfigError& error) {
    expect_error(error.what(), {"may mean a.size, b.c.size; write the whole path"});
  }
  EXPECT_EQ(settings::find_setting("c.size", groups).paths, std::vector<std::string>{"b.c.size"});
  EXPECT_EQ(settings::find_setting("other", groups).paths, std::vector<std::string>{"a.other"});
}

TEST(Checks, SettingsThatDoNotGoTogether) {
  expect_error(yaml_error("diffusion_config:\n  no_use_residual: false\n"),
               {"test.yaml:2: diffusion_config.no_use_residual: no is not possible"});
  expect_error(yaml_error("diffusion_config: {mixed_ratio: 2:1}\n"), {"only nested models"});
  expect_error(yaml_error("unet_config: {inner_config: {}}\ndiffusion_config: {mixed_ratio: 4:2:1}\n"),
               {"test.yaml:2: diffusion_config.mixed_ratio: 3 numbers for 2 levels"});
  expect_error(yaml_error("unet_config: {inner_config: {}}\ndiffusion_config: {mixed_ratio: 0:0}\n"),
               {"at least one number must be more than 0"});
  expect_error(yaml_error("categorical_conditioning: 1\nuse_precomputed_text_embeddings: 1\n"),
               {"does not go together"});
  expect_error(yaml_error("categorical_conditioning: 1\ntext_kind: t5\n"), {"test.yaml:1: categorical_conditioning"});
  expect_error(yaml_error("sampler: ddpm\nddim_eta: 0\n"), {"test.yaml:2: ddim_eta: belongs to the sampler ddim"});
  expect_error(yaml_error("sampler: unipc\nddim_eta: 0\n"), {"belongs to the sampler ddim, but sampler is unipc"});
  expect_error(yaml_error("guidance_start: 0.5\nguidance_end: 0.5\n"), {"must be less than guidance_end"});
  expect_error(yaml_error("prompt: [a, b, c]\nnegative_prompt: [x, y]\n"), {"2 texts for 3 prompts"});
  expect_error(yaml_error("device: gpu\n"), {"test.yaml:1: device: \"gpu\" is not auto, cpu, cuda or cuda:N"});
  expect_error(yaml_error("device: 'cuda:x'\n"), {"is not auto, cpu"});
  expect_error(yaml_error("loglevel: loud\n"), {"test.yaml:1: loglevel: "});
  expect_error(yaml_error("unet_config:\n  micro_conditioning: scale\n"),
               {"test.yaml:2: unet_config.micro_conditioning"});
  expect_error(yaml_error("reader_config: {endpoint_url: 'https://me:secret@host/x'}\n"), {"holds a user or password"});
  EXPECT_EQ(yaml_error("reader_config: {endpoint_url: 'https://host/a@b'}\n"), "");
  EXPECT_EQ(yaml_error("device: 'cuda:1'\nloglevel: WARNING\n"), "");
  const std::string secret = yaml_error("reader_config: {endpoint_url: 'https://me:secret@host/x'}\n");
  EXPECT_EQ(secret.find("secret"), std::string::npos);
}

TEST(Checks, WhatFollowsFromOtherSettings) {
  EXPECT_EQ(from_yaml("ddim_eta: 0.5\n").config.sample.sampler, SamplerKind::kDdim);
  EXPECT_EQ(from_yaml("sampler: ddim\n").config.sample.ddim_eta, 0.0);
  EXPECT_EQ(from_yaml("sampler: ddpm\nddim_eta: null\n", {{"ddim_eta", "1"}}).config.sample.sampler,
            SamplerKind::kDdim);
  const SampleConfig flag_first = from_yaml("ddim_eta: 0.5\n", {{"sampler", "dpmpp_2m"}}).config.sample;
  EXPECT_EQ(flag_first.sampler, SamplerKind::kDpmSolver2M);
  EXPECT_FALSE(flag_first.ddim_eta.has_value());
  EXPECT_FALSE(from_yaml("").config.sample.ddim_eta.has_value());
  EXPECT_EQ(from_yaml("categorical_conditioning: 1\n").config.text.kind, TextKind::kClass);
  EXPECT_EQ(from_yaml("use_precomputed_text_embeddings: 1\n").config.text.kind, TextKind::kPrecomputed);
  EXPECT_TRUE(from_yaml("text_kind: precomputed\n").config.text.use_precomputed_text_embeddings);
  EXPECT_FALSE(from_yaml("diffusion_config: {sampler_config: {rescale_signal: 0}}\n")
                   .config.diffusion.sampler_config.rescale_signal.has_value());
  EXPECT_TRUE(mentions(from_yaml("unet_config: {inner_config: {}}\nmulti_res_weights: 4:1\n").warnings,
                       "has no effect without use_double_loss"));
}

TEST(Checks, TheInnerCheckpointMattersInTrainingAlone) {
  const std::string yaml = "unet_config:\n  inner_config: {}\n  initialize_inner_with_pretrained: gone.pth\n";
  EXPECT_EQ(yaml_error(yaml, {}, ConfigUse::kInspect), "");
  EXPECT_TRUE(mentions(from_yaml(yaml, {}, ConfigUse::kSample).notes, "\"gone.pth\" is not used in sampling"));
  expect_error(yaml_error(yaml, {}, ConfigUse::kTrain),
               {"test.yaml:3: unet_config.initialize_inner_with_pretrained: there is no file \"gone.pth\""});
  const auto there = temporary_file("inner.pth", "x");
  EXPECT_EQ(yaml_error("unet_config:\n  inner_config: {}\n  initialize_inner_with_pretrained: " + there.string() + "\n",
                       {}, ConfigUse::kTrain),
            "");
}

TEST(Errors, AllOfAFileAreToldAtOnceButNotEndlessly) {
  std::string yaml;
  for (int i = 0; i < 50; ++i) yaml += "key" + std::to_string(i) + "x: 1\n";
  const std::string error = yaml_error(yaml);
  expect_error(error, {"test.yaml:1:", "test.yaml:20:", "and 30 more"});
  EXPECT_EQ(error.find("test.yaml:21:"), std::string::npos);
}

TEST(PadPolicies, AreWrittenAsTheyAreRead) {
  for (const char* text : {"pair", "batch", "fixed:1", "fixed:128"}) EXPECT_EQ(PadPolicy::parse(text).text(), text);
  for (const char* text : {"", "pairs", "fixed", "fixed:", "fixed:-1", "fixed:1.5", "fixed:0", "fixed:99999999"}) {
    EXPECT_THROW(PadPolicy::parse(text), ConfigError) << text;
    expect_error(yaml_error("", {{"pad", text}}), {"is not one of pair|batch|fixed:N, N from 1 to 1000000"});
  }
}

}  // namespace
}  // namespace mdm
