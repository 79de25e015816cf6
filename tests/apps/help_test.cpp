// --help, --version and --print-config of every program.
#include <algorithm>
#include <sstream>

#include "apps/workshop.h"
#include "mdm/config/config.h"
#include "mdm/core/version.h"

namespace mdm::apps_test {
namespace {

const std::vector<std::pair<std::string, std::string>> kPrograms = {{"sample", MDM_SAMPLE},
                                                                    {"checkpoint", MDM_CHECKPOINT}};

TEST(Help, OfEveryProgramShowsUsageFlagsAndExamples) {
  for (const auto& [name, path] : kPrograms) {
    const Outcome outcome = run(path, {"--help"});
    expect_success(outcome);
    EXPECT_EQ(outcome.err, "");
    for (const std::string& part :
         {"Usage: " + name + " [flags]", std::string("\nGeneral\n"), std::string("--config-path FILE"),
          std::string("-h, --help"), "\nExamples\n  " + name}) {
      EXPECT_TRUE(holds(outcome.out, part)) << name << ": " << part;
    }
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

TEST(Help, AndVersionNeedNothingElseToBeRight) {
  for (const auto& [name, path] : kPrograms) {
    const Outcome outcome = run(path, {"--version"});
    expect_success(outcome);
    EXPECT_EQ(outcome.out, name + " " + version() + "\n");
  }
  expect_success(sample({"--checkpoint", "/gone.pth", "--help"}));
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
