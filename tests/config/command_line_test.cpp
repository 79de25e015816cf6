// Command lines: flags, help, --print-config, exit codes.
#include "mdm/config/command_line.h"

#include <gtest/gtest.h>

#include <new>

#include "config/describe.h"
#include "config/support.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using testing::temporary_file;
using Arguments = std::vector<std::string>;

AppInfo sample_app() {
  AppInfo info;
  info.name = "sample";
  info.summary = "Makes pictures from text.";
  info.sections =
      Section::kModel | Section::kDiffusion | Section::kReader | Section::kText | Section::kSample | Section::kRuntime;
  info.use = ConfigUse::kSample;
  return info;
}

Config config_of(const Arguments& arguments) { return parse_command_line(arguments, sample_app()).load().config; }

std::string error_of(const Arguments& arguments, const AppInfo& info = sample_app()) {
  try {
    parse_command_line(arguments, info).load();
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

struct AppRun {
  int code;
  std::string out, err;
};
AppRun run(
    const Arguments& arguments, const AppInfo& info = sample_app(),
    const std::function<int(const ParsedCommandLine&)>& body = [](const ParsedCommandLine&) { return 0; }) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const int code = run_app(arguments, info, body);
  std::string out = ::testing::internal::GetCapturedStdout();
  return {code, std::move(out), ::testing::internal::GetCapturedStderr()};
}

TEST(CommandLine, FlagsInAllForms) {
  const auto file =
      temporary_file("app.yaml", "guidance_scale: 2\nunet_config: {temporal_dim: 8}\nprompt: from file\n");
  const Config config = config_of({"--config_path",
                                   file.string(),
                                   "--prompt",
                                   "a cat",
                                   "--prompt=-h is no flag",
                                   "--seed",
                                   "-1",
                                   "--unet_config.micro_conditioning=scale:8",
                                   "--num-inference-steps=5",
                                   "--no-grid",
                                   "--output-inner",
                                   "--noema",
                                   "--metadata",
                                   "no",
                                   "--set",
                                   "diffusion_config.mixed_ratio=",
                                   "--set=sample.num_samples=3",
                                   "--ddim-eta",
                                   "0",
                                   "--output-dir",
                                   "out",
                                   "--no-cuda-graphs",
                                   "--fp16",
                                   "1"});
  EXPECT_EQ(config.sample.prompts, (std::vector<std::string>{"a cat", "-h is no flag"}));
  EXPECT_EQ(config.sample.guidance_scale, 2);
  EXPECT_EQ(config.sample.seed, -1);
  EXPECT_EQ(config.model.levels[0].micro_conditioning, "scale:8");
  EXPECT_EQ(config.model.levels[0].temporal_dim, 8);
  EXPECT_EQ(config.sample.num_inference_steps, 5);
  EXPECT_FALSE(config.sample.grid);
  EXPECT_TRUE(config.sample.output_inner);
  EXPECT_FALSE(config.sample.ema);
  EXPECT_FALSE(config.sample.metadata);
  EXPECT_EQ(config.sample.num_samples, 3);
  EXPECT_EQ(config.sample.sampler, SamplerKind::kDdim);
  EXPECT_EQ(config.sample.output_dir, "out");
  EXPECT_EQ(config.runtime.precision, Precision::kBf16);
  EXPECT_FALSE(config.runtime.cuda_graphs);
}

TEST(CommandLine, FilesAndFlagsInOrder) {
  const auto first = temporary_file("one.yaml", "guidance_scale: 2\nstrength: 0.1\n");
  const auto second = temporary_file("two.yaml", "guidance_scale: 3\n");
  const Config config = config_of({"--strength", "0.5", "--reader-config-file", first.string(), "--strength", "0.7",
                                   "--config-path=" + second.string()});
  EXPECT_EQ(config.sample.guidance_scale, 3);
  EXPECT_EQ(config.sample.strength, 0.7);
  EXPECT_EQ(config_of({"--vision-model", "nested_unet"}).model.levels.size(), 2u);
}

TEST(CommandLine, ASwitchTakesTheNextArgumentOnlyIfItIsAYesOrNo) {
  const Config config = config_of({"--grid", "0", "--gallery", "--prompt", "yes"});
  EXPECT_FALSE(config.sample.grid);
  EXPECT_TRUE(config.sample.gallery);
  EXPECT_EQ(config.sample.prompts, std::vector<std::string>{"yes"});
}

TEST(CommandLine, AFlagTakesWhateverFollowsItAsItIs) {
  const Arguments odd = {"-h and -v", "-1",       "--grid", "--seed=3", "--",  "",      "[a, b]",
                         "{}",        "/windows", "%%",     "++",       "a=b", "@file", "\"quoted\""};
  for (const std::string& value : odd) {
    for (const Arguments& line : {Arguments{"--prompt", value, "--no-grid"}, {"--prompt=" + value, "--no-grid"}}) {
      const auto parsed = parse_command_line(line, sample_app());
      EXPECT_EQ(parsed.overrides, (Overrides{{"prompt", value}, {"no-grid", "true"}})) << value;
      EXPECT_EQ(parsed.action, ParsedCommandLine::Action::kRun) << value;
    }
  }
}

TEST(CommandLine, OverridesKeepTheOrderAndTheSpellingOfTheLine) {
  const auto line = parse_command_line({"--num-samples", "1", "--set", "sample.num_samples=2", "--num_samples=3",
                                        "--grid=", "--num-samples=4", "--print-config", "--print_config"},
                                       sample_app());
  EXPECT_EQ(line.overrides, (Overrides{{"num-samples", "1"},
                                       {"sample.num_samples", "2"},
                                       {"num_samples", "3"},
                                       {"grid", ""},
                                       {"num-samples", "4"}}));
  EXPECT_EQ(line.action, ParsedCommandLine::Action::kPrintConfig);
}

TEST(CommandLine, ErrorsNameTheFlagAndTheNearest) {
  EXPECT_NE(error_of({"--guidance-scal", "3"}).find("did you mean guidance_scale?"), std::string::npos);
  EXPECT_NE(error_of({"--config-pat", "3"}).find("did you mean --config_path?"), std::string::npos);
  EXPECT_NE(error_of({"--prompt"}).find("flag --prompt needs a value"), std::string::npos);
  EXPECT_NE(error_of({"--set", "x"}).find("must be NAME=VALUE"), std::string::npos);
  EXPECT_NE(error_of({"--set", "guidance=1"}).find("is no setting"), std::string::npos);
  EXPECT_NE(error_of({"picture.png"}).find("sample takes flags only"), std::string::npos);
  EXPECT_NE(error_of({"-x"}).find("flags start with two dashes"), std::string::npos);
  EXPECT_NE(error_of({"-height", "64"}).find("flags start with two dashes"), std::string::npos);
  EXPECT_NE(error_of({"---grid"}).find("is no setting"), std::string::npos);
  EXPECT_NE(error_of({"--grid", "--", "--seed"}).find("\"--seed\": sample takes flags only"), std::string::npos);
  EXPECT_NE(error_of({"--seed", "1", "--config_path"}).find("flag --config_path needs a value"), std::string::npos);
  EXPECT_NE(error_of({"--help=all"}).find("flag --help takes no value"), std::string::npos);
  EXPECT_NE(error_of({"--=3"}).find("is no flag"), std::string::npos);
  EXPECT_NE(error_of({"--strength=2"}).find("flag --strength: strength: 2 is out of range"), std::string::npos);
}

TEST(CommandLine, SettingsOfOtherProgramsSayWhoseTheyAre) {
  const auto expect = [](const Arguments& arguments, const AppInfo& info, const std::string& part) {
    const std::string error = error_of(arguments, info);
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  const std::string training = " is no setting of this program; it belongs to training (trainer.";
  expect({"--lr", "3"}, sample_app(), "flag --lr: \"lr\"" + training + "lr)");
  expect({"--warmup-steps=3"}, sample_app(), "\"warmup_steps\"" + training + "warmup_steps)");
  expect({"--set", "trainer.lr=3"}, sample_app(), "\"trainer.lr\"" + training + "lr)");
  expect({"--no-multinode"}, sample_app(), "\"no_multinode\"" + training + "multinode)");
  AppInfo plain = sample_app();
  plain.sections = Section::kModel;
  expect({"--batch-size", "1"}, plain, "it belongs to training (trainer.batch_size) and sampling (sample.batch_size)");
  expect({"--device", "cpu"}, plain, "it belongs to the machine (runtime.device)");
  AppInfo train = sample_app();
  train.sections = Section::kAll;
  EXPECT_EQ(error_of({"--lr", "3"}, train), "");
}

TEST(CommandLine, ProgramsHaveOptionsAndPositionalsOfTheirOwn) {
  AppInfo info;
  info.name = "checkpoint";
  info.summary = "Looks into checkpoints.";
  info.sections = Section::kModel;
  info.options = {{"dry-run", "", "only say what would be done"}, {"randomize", "SEED", "draw all weights"}};
  info.positionals = "COMMAND FILE";
  const auto line = parse_command_line({"inspect", "--dry-run", "--randomize", "5", "--", "--odd-name"}, info);
  EXPECT_EQ(line.positionals, (std::vector<std::string>{"inspect", "--odd-name"}));
  EXPECT_EQ(parse_command_line({"a", "--skip-mid-blocks", "b", "-", "--", "--", "-c"}, info).positionals,
            (std::vector<std::string>{"a", "b", "-", "--", "-c"}));
  EXPECT_TRUE(line.has("dry-run"));
  EXPECT_EQ(line.option("randomize"), "5");
  EXPECT_EQ(line.option("absent", "x"), "x");
  EXPECT_NE(error_of({"--dry-run=yes"}, info).find("takes no value"), std::string::npos);
  EXPECT_NE(error_of({"--dry-rn"}, info).find("did you mean --dry-run?"), std::string::npos);
  const std::string help = help_text(info);
  EXPECT_NE(help.find("--randomize SEED"), std::string::npos);
  EXPECT_NE(help.find("COMMAND FILE"), std::string::npos);
}

TEST(CommandLine, HelpMentionsEverySetting) {
  AppInfo info = sample_app();
  info.sections = Section::kAll;
  const std::string help = help_text(info);
  Config config;
  config.model = settings::default_model(2);
  for (const auto& group : settings::describe(config)) {
    if (group.path.find("inner_config") != std::string::npos) continue;
    EXPECT_NE(help.find("\n" + group.title + "\n"), std::string::npos) << group.title;
    for (const auto& field : group.fields) {
      std::string flag = "--" + (group.flat ? field.name : group.path + "." + field.name) + " ";
      if (group.flat) std::replace(flag.begin(), flag.end(), '_', '-');
      EXPECT_NE(help.find(flag), std::string::npos) << flag;
      EXPECT_NE(help.find(field.type()), std::string::npos) << flag;
    }
  }
  EXPECT_NE(help.find("also --model-file"), std::string::npos);
  EXPECT_NE(help.find("(default 7.5; 0 to 1000; also --cfg-weight)"), std::string::npos);
  for (size_t from = 0; from < help.size();) {
    const size_t to = std::min(help.find('\n', from), help.size());
    EXPECT_LE(to - from, 110u) << help.substr(from, to - from);
    from = to + 1;
  }
  // Settings of other programs stay out.
  EXPECT_EQ(help_text(sample_app()).find("--warmup-steps"), std::string::npos);
}

TEST(CommandLine, PrintConfigSaysWhereValuesComeFrom) {
  const auto file =
      temporary_file("printed.yaml", "model: nested_unet\nunet_config:\n  inner_config: {temporal_dim: 8}\n");
  const AppRun result = run({"--config_path", file.string(), "--prompt", "x", "--print-config"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("    temporal_dim: 8  # " + file.string() + ":3\n"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("prompt: [\"x\"]  # flag --prompt\n"), std::string::npos);
  EXPECT_NE(result.out.find("guidance_scale: 7.5  # default\n"), std::string::npos);
  EXPECT_NE(result.out.find("cuda_graphs: true  # default\n"), std::string::npos);
  EXPECT_EQ(result.out.find("warmup_steps"), std::string::npos);
  const auto again = temporary_file("again.yaml", result.out);
  EXPECT_EQ(config_to_json(load_config({again})),
            config_to_json(config_of({"--config_path", file.string(), "--prompt", "x"})));
}

TEST(CommandLine, WithoutAFileTheModelIsOpenUntilTheCheckpointIsRead) {
  const auto line =
      parse_command_line({"--checkpoint", "a.pth", "--skip_normalization", "--mixed_ratio=2:1"}, sample_app());
  EXPECT_EQ(line.preliminary().config.sample.checkpoint, "a.pth");
  EXPECT_THROW(line.load(), ConfigError);  // a plain model has neither
  Config inside;
  inside.model = settings::default_model(2);
  const Config config = line.load(config_to_json(inside)).config;
  EXPECT_TRUE(config.model.levels[0].skip_normalization);
  EXPECT_EQ(config.diffusion.mixed_ratio, (std::vector<double>{2, 1}));
  EXPECT_EQ(config.sample.checkpoint, "a.pth");
}

TEST(CommandLine, ASmallFileMayCountOnTheCheckpointsModel) {
  Config inside;
  inside.model = settings::default_model(2);
  const std::string json = config_to_json(inside);
  for (const char* yaml :
       {"diffusion_config: {mixed_ratio: 2:1}\n",
        "model: nested_unet\nunet_config: {freeze_inner_unet: true}\ndiffusion_config: {mixed_ratio: 2:1}\n"}) {
    const auto file = temporary_file("small.yaml", yaml);
    const auto line = parse_command_line({"--checkpoint", "a.pth", "--config_path", file.string()}, sample_app());
    const LoadedConfig early = line.preliminary();
    EXPECT_TRUE(early.partial);
    EXPECT_EQ(early.config.sample.checkpoint, "a.pth");
    EXPECT_THROW(line.load(), ConfigError) << yaml;
    const LoadedConfig whole = line.load(json);
    EXPECT_FALSE(whole.partial);
    EXPECT_EQ(whole.config.diffusion.mixed_ratio, (std::vector<double>{2, 1}));
    EXPECT_EQ(whole.config.model.levels.size(), 2u);
  }
  // What no checkpoint decides is checked and derived at once.
  const auto line = parse_command_line({"--ddim-eta", "0.5"}, sample_app());
  EXPECT_EQ(line.preliminary().config.sample.sampler, SamplerKind::kDdim);
  EXPECT_THROW(parse_command_line({"--ddim-eta=1", "--sampler=ddpm"}, sample_app()).preliminary(), ConfigError);
  EXPECT_THROW(parse_command_line({"--device", "gpu"}, sample_app()).preliminary(), ConfigError);
}

TEST(CommandLine, APartialConfigHasTheDefaultsOfItsOwnLevels) {
  const auto model_of = [](const Arguments& arguments) {
    return parse_command_line(arguments, sample_app()).preliminary().config.model;
  };
  const std::vector<std::pair<Arguments, size_t>> cases = {
      {{}, 1}, {{"--model", "unet"}, 1}, {{"--model", "nested_unet"}, 2}, {{"--model", "nested4_unet"}, 5}};
  for (const auto& [arguments, levels] : cases) {
    const ModelConfig model = model_of(arguments);
    const ModelConfig expected = settings::default_model(static_cast<int>(levels));
    ASSERT_EQ(model.levels.size(), levels);
    for (size_t i = 0; i < levels; ++i) {
      EXPECT_EQ(model.levels[i].skip_mid_blocks, expected.levels[i].skip_mid_blocks) << levels << " " << i;
      EXPECT_EQ(model.levels[i].skip_cond_emb, expected.levels[i].skip_cond_emb) << levels << " " << i;
      EXPECT_EQ(model.levels[i].nesting, expected.levels[i].nesting) << levels << " " << i;
    }
  }
  EXPECT_FALSE(model_of({}).levels[0].skip_mid_blocks);
  EXPECT_TRUE(model_of({"--skip-mid-blocks"}).levels[0].skip_mid_blocks);
}

TEST(CommandLine, PrintConfigShowsWhatTheProgramMakesOfIt) {
  AppInfo info = sample_app();
  info.resolve = [](const ParsedCommandLine& line) {
    Config inside;
    inside.model = settings::default_model(2);
    inside.model.levels[1].temporal_dim = 24;
    return line.option("x").empty() ? line.load(config_to_json(inside)) : line.preliminary();
  };
  info.options = {{"x", "X", "leaves the model open"}};
  const AppRun whole = run({"--print-config", "--mixed_ratio=2:1"}, info);
  EXPECT_EQ(whole.code, 0) << whole.err;
  EXPECT_NE(whole.out.find("model: nested_unet  # config of the checkpoint\n"), std::string::npos) << whole.out;
  EXPECT_NE(whole.out.find("    temporal_dim: 24  # config of the checkpoint\n"), std::string::npos);
  EXPECT_NE(whole.out.find("mixed_ratio: [2, 1]  # flag --mixed_ratio\n"), std::string::npos);
  EXPECT_EQ(whole.out.find("# No checkpoint is named"), std::string::npos);
  const AppRun open = run({"--print-config", "--mixed_ratio=2:1", "--x=1"}, info);
  EXPECT_EQ(open.code, 0) << open.err;
  EXPECT_EQ(open.out.compare(0, 24, "# No checkpoint is named"), 0) << open.out;
  EXPECT_NE(open.out.find("skip_mid_blocks: false  # default\n"), std::string::npos);
  info.resolve = [](const ParsedCommandLine&) -> LoadedConfig { throw CheckpointError("a.pth: gone"); };
  const AppRun failed = run({"--print-config"}, info);
  EXPECT_EQ(failed.code, 3);
  EXPECT_EQ(failed.err, "error: a.pth: gone\n");
  EXPECT_EQ(failed.out, "");
  // Without a hook the config is whole, as for a program that reads no checkpoint.
  EXPECT_EQ(run({"--print-config", "--mixed_ratio=2:1"}).code, 2);
}

TEST(RunApp, ActionsDoNotRunTheProgram) {
  const auto never = [](const ParsedCommandLine&) -> int {
    ADD_FAILURE() << "ran";
    return 9;
  };
  for (const char* flag : {"--help", "-h", "--version", "--print-config"}) {
    const AppRun result = run({flag}, sample_app(), never);
    EXPECT_EQ(result.code, 0) << flag;
    EXPECT_FALSE(result.out.empty()) << flag;
    EXPECT_EQ(result.err, "") << flag;
  }
}

TEST(RunApp, ErrorsBecomeOneLineAndAnExitCode) {
  const auto code_for = [](const auto& error) {
    const AppRun result = run({}, sample_app(), [&](const ParsedCommandLine&) -> int { throw error; });
    EXPECT_EQ(result.err.compare(0, 7, "error: "), 0) << result.err;
    EXPECT_EQ(result.out, "");
    return result.code;
  };
  EXPECT_EQ(code_for(ConfigError("x")), 2);
  EXPECT_EQ(code_for(DataError("x")), 3);
  EXPECT_EQ(code_for(CheckpointError("x")), 3);
  EXPECT_EQ(code_for(Error("x")), 1);
  EXPECT_EQ(code_for(std::runtime_error("x")), 1);
  EXPECT_EQ(code_for(std::bad_alloc()), 1);
  EXPECT_EQ(run({"--no-such-flag"}).code, 2);
  EXPECT_EQ(run({}, sample_app(), [](const ParsedCommandLine&) { return 130; }).code, 130);
}

}  // namespace
}  // namespace mdm
