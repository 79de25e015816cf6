// Models with a text encoder of their own: one file is enough to sample from.
#include <gtest/gtest.h>

#include <sstream>

#include "mdm/checkpoint/inspect.h"
#include "mdm/core/error.h"
#include "mdm/pipeline.h"
#include "mdm/pipeline/checkpoint_job.h"
#include "mdm/text/joint_encoder.h"
#include "pipeline/support.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using pipeline_test::Kind;
using pipeline_test::quick_settings;
using pipeline_test::request;

// The YAML of model_yaml with text_kind joint and a vocabulary that is gone when this returns the checkpoint.
fs::path joint_checkpoint(const std::string& name, Kind kind, const std::string& ending = ".pth") {
  const fs::path vocabulary = pipeline_test::scratch() / (name + ".vocab");
  fs::copy_file(pipeline_test::text_model() / "own.vocab", vocabulary, fs::copy_options::overwrite_existing);
  std::string yaml = pipeline_test::model_yaml(kind);
  yaml.erase(yaml.find("text_model: "));
  yaml += "text_kind: joint\njoint_width: 32\njoint_layers: 1\njoint_heads: 2\njoint_tokens: 20\nvocab_file: " +
          vocabulary.string() + "\n";
  const fs::path file = pipeline_test::scratch() / (name + ending);
  const std::vector<std::string> words = {"init",          file.string(),
                                          "--config-path", pipeline_test::scratch_file(name + ".yaml", yaml).string(),
                                          "--randomize",   "5"};
  EXPECT_EQ(run_checkpoint(parse_command_line(words, checkpoint_app_info())), 0);
  fs::remove(vocabulary);
  return file;
}

std::vector<uint8_t> pixels_of(const fs::path& checkpoint, const std::string& prompt) {
  Pipeline pipeline = Pipeline::from_checkpoint(checkpoint);
  return pipeline.generate({request(prompt, 3)}, quick_settings()).at(0).image.pixels;
}

TEST(JointText, OneFileIsEnough) {
  for (const Kind kind : {Kind::kFlat, Kind::kNested}) {
    const fs::path file = joint_checkpoint(kind == Kind::kFlat ? "joint_flat" : "joint_nested", kind);
    EXPECT_EQ(Pipeline::from_checkpoint(file).text_width(), 32);
    const auto dog = pixels_of(file, "a dog");
    EXPECT_EQ(dog, pixels_of(file, "a dog"));
    EXPECT_NE(dog, pixels_of(file, "the old man and the sea")) << "the prompt has its say";
  }
}

TEST(JointText, ConversionsKeepTheEncoder) {
  const fs::path first = joint_checkpoint("joint_kept", Kind::kFlat);
  const auto expected = pixels_of(first, "a dog");
  const auto convert = [&](const fs::path& from, const std::string& name) {
    fs::path to = pipeline_test::scratch() / name;
    EXPECT_EQ(run_checkpoint(parse_command_line({"convert", from.string(), to.string()}, checkpoint_app_info())), 0);
    EXPECT_EQ(pixels_of(to, "a dog"), expected) << name;
    return to;
  };
  const fs::path second = convert(first, "joint_kept.safetensors");
  convert(second, "joint_back.pth");
  EXPECT_EQ(pixels_of(joint_checkpoint("joint_direct", Kind::kFlat, ".safetensors"), "a dog"), expected);

  std::ostringstream listing;
  print_inspection(inspect_checkpoint(first), listing);
  EXPECT_NE(listing.str().find("other tensors at: text_encoder"), std::string::npos) << listing.str();
  std::ostringstream flat;
  print_inspection(inspect_checkpoint(second), flat);
  EXPECT_NE(flat.str().find("text_encoder.token_embedding"), std::string::npos) << flat.str();
}

TEST(JointText, WhatDoesNotFitIsSaid) {
  const fs::path file = joint_checkpoint("joint_odd", Kind::kFlat);
  const auto with = [&](const Overrides& overrides) {
    Pipeline::from_checkpoint(file, {}, overrides).generate({request("a dog")}, quick_settings());
  };
  EXPECT_THROW(with({{"joint_layers", "2"}}), CheckpointError);
  EXPECT_THROW(with({{"joint_width", "64"}}), CheckpointError);
  const fs::path without = pipeline_test::checkpoint_of(Kind::kFlat);
  EXPECT_THROW(
      Pipeline::from_checkpoint(without, {}, {{"text_kind", "joint"}}).generate({request("a dog")}, quick_settings()),
      CheckpointError);
  const std::vector<std::string> words = {"init", (pipeline_test::scratch() / "no.pth").string(), "--config-path",
                                          (pipeline_test::scratch() / "joint_odd.yaml").string()};
  EXPECT_THROW(run_checkpoint(parse_command_line(words, checkpoint_app_info())), ConfigError) << "no vocabulary";
}

}  // namespace
}  // namespace mdm
