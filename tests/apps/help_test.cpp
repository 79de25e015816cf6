// --help, --version and --print-config of every program.
#include <algorithm>
#include <sstream>

#include "apps/workshop.h"
#include "mdm/config/config.h"
#include "mdm/core/version.h"

namespace mdm::apps_test {
namespace {

const std::vector<std::pair<std::string, std::string>> kPrograms = {{"sample", MDM_SAMPLE},
                                                                    {"checkpoint", MDM_CHECKPOINT},
                                                                    {"train_parallel", MDM_TRAIN_PARALLEL},
                                                                    {"demo_dataset", MDM_DEMO_DATASET},
                                                                    {"web_demo", MDM_WEB_DEMO},
                                                                    {"evaluate", MDM_EVALUATE}};

// demo_dataset has no settings, and so no config to read or print.
bool has_settings(const std::string& program) { return program != "demo_dataset"; }

TEST(Help, OfEveryProgramShowsUsageFlagsAndExamples) {
  for (const auto& [name, path] : kPrograms) {
    const Outcome outcome = run(path, {"--help"});
    expect_success(outcome);
    EXPECT_EQ(outcome.err, "");
    for (const std::string& part : {"Usage: " + name + " [flags]", std::string("\nGeneral\n"),
                                    std::string("-h, --help"), "\nExamples\n  " + name}) {
      EXPECT_TRUE(holds(outcome.out, part)) << name << ": " << part;
    }
    EXPECT_EQ(holds(outcome.out, "--config-path FILE"), has_settings(name)) << name;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 130u) << line;
    EXPECT_EQ(run(path, {"-h"}).out, outcome.out);
  }
  const std::string help = sample({"--help"}).out;
  for (const char* flag : {"--prompt ",
                           "--negative-prompt ",
                           "--guidance-scale ",
                           "--num-inference-steps ",
                           "--ddim-eta ",
                           "--sampler ",
                           "--threshold ",
                           "--init-image ",
                           "--strength ",
                           "--seed ",
                           "--num-samples ",
                           "--batch-size ",
                           "--precision ",
                           "--device ",
                           "--threads ",
                           "--output-inner ",
                           "--ema ",
                           "--from-image ",
                           "--animation ",
                           "--sample-dir ",
                           "--text-model "}) {
    EXPECT_TRUE(holds(help, std::string("\n  ") + flag)) << flag;
  }
}

TEST(Help, OfTrainingNamesItsFlags) {
  const std::string help = run(MDM_TRAIN_PARALLEL, {"--help"}).out;
  for (const char* flag :
       {"--file-list ", "--output-dir ", "--num-training-steps ", "--lr ", "--warmup-steps ", "--save-freq ",
        "--ema-decay ", "--sample-freq ", "--validation-file-list ", "--embedding-cache ", "--pretrained-vision-file ",
        "--max-skipped-steps ", "--precision ", "--keep-last ", "--gradient-checkpointing "}) {
    EXPECT_TRUE(holds(help, std::string("\n  ") + flag)) << flag;
  }
  EXPECT_FALSE(holds(help, "\n  --prompt ")) << "that is of sampling";
}

TEST(Help, AndVersionNeedNothingElseToBeRight) {
  for (const auto& [name, path] : kPrograms) {
    const Outcome outcome = run(path, {"--version"});
    expect_success(outcome);
    EXPECT_EQ(outcome.out, name + " " + version() + "\n");
  }
  expect_success(sample({"--checkpoint", "/gone.pth", "--help"}));
  expect_success(run(MDM_TRAIN_PARALLEL, {"--config-path", "/gone.yaml", "--version"}));
}

TEST(PrintConfig, GivesAFileThatMakesTheSameConfigAgain) {
  const Folder folder;
  const Words flags = {"--config-path",
                       demo_config(true),
                       "--prompt",
                       "a: \"cat\" # \xC3\xA9",
                       "--seed",
                       "7",
                       "--ddim-eta",
                       "0.5",
                       "--unet_config.inner_config.masked_cross_attention=1",
                       "--print-config"};
  const Outcome first = sample(flags);
  expect_success(first);
  EXPECT_TRUE(holds(first.out, "num_diffusion_steps: 1000  # " + demo_config(true) + ":")) << first.out;
  EXPECT_TRUE(holds(first.out, "ddim_eta: 0.5  # flag --ddim-eta")) << first.out;
  EXPECT_TRUE(holds(first.out, "guidance_scale: 7.5  # default")) << first.out;
  const std::string file = folder.write("dump.yaml", first.out);
  const Config config = load_config({file});
  EXPECT_EQ(config.sample.seed, 7);
  EXPECT_EQ(config.sample.prompts, std::vector<std::string>{"a: \"cat\" # \xC3\xA9"});
  EXPECT_EQ(config.model.levels.at(1).masked_cross_attention, 1);
  const Outcome second = sample({"--config-path", file, "--print-config"});
  expect_success(second);
  const auto without_origins = [](const std::string& text) {
    std::istringstream lines(text);
    std::string out;
    for (std::string line; std::getline(lines, line);) out += line.substr(0, line.rfind("  # ")) + "\n";
    return out;
  };
  EXPECT_EQ(without_origins(second.out), without_origins(first.out));
}

TEST(PrintConfig, OfTrainingMakesTheSameConfigAgainAndTouchesNothing) {
  const Folder folder;
  const Outcome first = run(MDM_TRAIN_PARALLEL, {"--config-path", demo_config(true), "--lr", "0.25", "--no-use-adamw",
                                                 "--output-dir", folder.file("run"), "--print-config"});
  expect_success(first);
  EXPECT_TRUE(holds(first.out, "lr: 0.25  # flag --lr\n")) << first.out;
  EXPECT_TRUE(holds(first.out, "use_adamw: false  # flag --no-use-adamw\n")) << first.out;
  EXPECT_TRUE(holds(first.out, "warmup_steps: 100  # " + demo_config(true) + ":")) << first.out;
  EXPECT_TRUE(holds(first.out, "max_skipped_steps: 20  # default\n")) << first.out;
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "run"));
  const std::string file = folder.write("dump.yaml", first.out);
  Config again = load_config({file});
  const Config expected = load_config(
      {demo_config(true)}, {{"lr", "0.25"}, {"use_adamw", "false"}, {"trainer.output_dir", folder.file("run")}});
  again.sample = expected.sample;  // no settings of this program
  EXPECT_EQ(config_to_json(again), config_to_json(expected));
}

TEST(PrintConfig, IsNoFlagOfAProgramWithoutSettings) {
  expect_failure(run(MDM_DEMO_DATASET, {"shapes", "--print-config", "--config-path", "/gone.yaml"}), 2, {});
}

TEST(PrintConfig, HoldsWhatIsInsideTheCheckpointAndThePicture) {
  const Folder folder;
  const std::string small = folder.write("small.yaml", "diffusion_config: {mixed_ratio: 2:1}\n");
  const Outcome nested = sample({"--checkpoint", nested_checkpoint(), "--config-path", small, "--print-config"});
  expect_success(nested);
  EXPECT_TRUE(holds(nested.out, "model: nested_unet  # config of the checkpoint\n")) << nested.out;
  EXPECT_TRUE(holds(nested.out, "mixed_ratio: [2, 1]  # " + small + ":1\n")) << nested.out;
  const ModelConfig inside = load_config({demo_config(true)}).model;
  const ModelConfig printed = load_config({folder.write("nested.yaml", nested.out)}).model;
  ASSERT_EQ(printed.levels.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(printed.levels[i].resolution_channels, inside.levels[i].resolution_channels);
    EXPECT_EQ(printed.levels[i].skip_mid_blocks, inside.levels[i].skip_mid_blocks);
  }
  expect_success(sample(quick(nested_checkpoint(), folder.file("made"),
                              {"--config-path", small, "--prompt", "a fox", "--num-inference-steps", "1",
                               "--guidance-scale", "1.25", "--no-gallery", "--no-grid"})));

  const std::string made = folder.file("made/sample_000000.png");
  const Outcome again =
      sample({"--checkpoint", nested_checkpoint(), "--from-image", made, "--seed", "77", "--print-config"});
  expect_success(again);
  EXPECT_TRUE(holds(again.out, "prompt: [\"a fox\"]  # " + made + "\n")) << again.out;
  EXPECT_TRUE(holds(again.out, "guidance_scale: 1.25  # " + made + "\n")) << again.out;
  EXPECT_TRUE(holds(again.out, "seed: 77  # flag --seed\n")) << again.out;
  EXPECT_TRUE(holds(again.out, "model: nested_unet  # config of the checkpoint\n"));
}

TEST(PrintConfig, OfACheckpointOrPictureThatCanNotBeReadIsAnError) {
  const Folder folder;
  expect_failure(sample({"--checkpoint", folder.file("gone.pth"), "--print-config"}), 3, {"gone.pth: No such file"});
  expect_failure(sample({"--checkpoint", folder.write("text.pth", "hello\n"), "--print-config"}), 3,
                 {"text.pth: is a text file"});
  expect_failure(sample({"--from-image", folder.file("gone.png"), "--print-config"}), 3, {"gone.png: No such file"});
  const std::string small = folder.write("small.yaml", "diffusion_config: {mixed_ratio: 2:1}\n");
  expect_failure(sample({"--checkpoint", flat_checkpoint(), "--config-path", small, "--print-config"}), 2,
                 {"small.yaml:1: diffusion_config.mixed_ratio: only nested models have levels to weigh"});
}

// What is printed without a checkpoint has a plain model's middle blocks, and so has what is made from it.
TEST(PrintConfig, WithoutACheckpointDescribesAModelThatCanBeMade) {
  const Folder folder;
  const Outcome printed = sample({"--resolution-channels", "32,32", "--num-resnets-per-resolution", "1",
                                  "--attention-levels", "1", "--print-config"});
  expect_success(printed);
  EXPECT_TRUE(holds(printed.out, "# No checkpoint is named")) << printed.out;
  EXPECT_TRUE(holds(printed.out, "skip_mid_blocks: false  # default\n")) << printed.out;
  EXPECT_TRUE(holds(printed.out, "skip_cond_emb: false  # default\n")) << printed.out;
  const std::string file = folder.file("fresh.pth");
  expect_success(
      checkpoint({"init", file, "--config-path", folder.write("printed.yaml", printed.out), "--text-width", "16"}));
  const Outcome inside = checkpoint({"inspect", file});
  expect_success(inside);
  EXPECT_TRUE(holds(inside.out, "mid_blocks.0.resnets.0.")) << inside.out;
  EXPECT_TRUE(holds(inside.out, "cond_emb.weight")) << inside.out;
}

// What stands in the demo's config is found from wherever the program is started.
TEST(DemoConfig, WorksFromAnyFolder) {
  const Folder folder;
  for (const auto& [where, config] :
       std::vector<std::pair<std::filesystem::path, std::string>>{{project(), "configs/demo/tiny_32.yaml"},
                                                                  {project() / "configs/demo", "tiny_32.yaml"},
                                                                  {folder.path(), demo_config(false)}}) {
    RunOptions options;
    options.folder = where;
    const std::string file = folder.file("a.pth");
    expect_success(checkpoint({"init", file, "--config-path", config}, options));
    expect_success(sample(
        quick(file, folder.file("out"), {"--prompt", "a", "--num-inference-steps", "1", "--no-gallery"}), options));
    expect_success(sample(
        quick(file, folder.file("out"), {"--prompt", "a", "--num-inference-steps", "1", "--config-path", config}),
        options));
  }
}

}  // namespace
}  // namespace mdm::apps_test
