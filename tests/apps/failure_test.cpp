// What `sample` says, and with which exit code, when something is wrong.
#include "apps/workshop.h"
#include "mdm/media/png.h"

namespace mdm::apps_test {
namespace {

Words with(const std::string& checkpoint, const Words& more) {
  Words words = {"--checkpoint", checkpoint, "--prompt", "a cat", "--num-inference-steps", "1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

class SampleFails : public ::testing::Test {
 protected:
  // Fails so, and leaves nothing in the folder of pictures.
  void expect(const Words& words, int code, const std::vector<std::string>& parts) {
    Words all = words;
    all.insert(all.end(), {"--sample-dir", folder_.file("out")});
    expect_failure(sample(all), code, parts);
    if (!std::filesystem::exists(folder_.path() / "out")) return;
    EXPECT_TRUE(names_in(folder_.path() / "out").empty());
  }

  Folder folder_;
};

TEST_F(SampleFails, WithoutACheckpointThatCanBeRead) {
  expect({"--prompt", "a cat"}, 2, {"checkpoint: no file of weights; give --checkpoint FILE"});
  expect(with(folder_.file("gone.pth"), {}), 3, {"gone.pth: No such file"});
  expect(with(folder_.path().string(), {}), 3, {folder_.path().string(), "expected model.safetensors"});
  expect(with(folder_.write("empty.pth", ""), {}), 3, {"empty.pth: is empty"});
  expect(with(folder_.write("text.pth", "hello\n"), {}), 3, {"text.pth: is a text file"});
  const std::string whole = bytes_of(flat_checkpoint());
  expect(with(folder_.write("cut.pth", whole.substr(0, whole.size() / 2)), {}), 3, {"cut.pth: ", "cut off"});
}

TEST_F(SampleFails, WithAConfigThatIsNotThereOrWrong) {
  expect(with(flat_checkpoint(), {"--config-path", folder_.file("gone.yaml")}), 2, {"gone.yaml: No such file"});
  expect(with(flat_checkpoint(), {"--config-path", folder_.write("bad.yaml", "guidance_scal: 2\n")}), 2,
         {"bad.yaml:1: unknown key \"guidance_scal\"", "did you mean \"guidance_scale\"?"});
}

TEST_F(SampleFails, WithTheConfigOfAnotherModelListingWhatDoesNotFit) {
  expect(with(flat_checkpoint(), {"--config-path", demo_config(true)}), 3,
         {"flat.pth: doesn't fit the model", "missing:\n    inner_unet.", "unexpected:\n    cond_emb.weight",
          "The config describes a nested_unet; use the config that belongs to this checkpoint"});
  expect(with(nested_checkpoint(), {"--config-path", demo_config(false)}), 3,
         {"nested.pth: doesn't fit the model", "mid_blocks.0.resnets.0.norm1.weight", "inner_unet.cond_emb.weight",
          "The config describes a unet;"});
  expect(with(flat_checkpoint(), {"--set", "unet_config.resolution_channels=32,96"}), 3,
         {"down_blocks.1.resnets.0.conv1.weight: (64, 32, 3, 3) in the file, (96, 32, 3, 3) in the model"});
}

TEST_F(SampleFails, WithoutATextModelThatFits) {
  expect(with(flat_checkpoint(), {"--text-model", folder_.file("t5")}), 2,
         {"text_model '" + folder_.file("t5"), "config.json", "model.safetensors", "spiece.model"});
  expect(with(flat_checkpoint(), {"--text-model", folder_.path().string()}), 2, {"has no config.json"});
  expect(with(flat_checkpoint(), {"--vocab-file", folder_.file("own.vocab")}), 2,
         {"no vocabulary", "own.vocab' is not there"});

  const std::string narrow = folder_.file("narrow.pth");
  expect_success(
      checkpoint({"init", narrow, "--config-path", demo_config(false), "--text-width", "24", "--dtype", "bf16"}));
  expect(with(narrow, {}), 2, {"text_model: '", "features 32 wide, but the checkpoint was trained with 24"});
}

TEST_F(SampleFails, WithoutTheDeviceThatIsAskedFor) {
  RunOptions no_gpu;
  no_gpu.environment["CUDA_VISIBLE_DEVICES"] = "";
  expect_failure(sample(with(flat_checkpoint(), {"--device", "cuda"}), no_gpu), 2,
                 {"device: cuda was asked for", "use --device cpu"});
  expect(with(flat_checkpoint(), {"--device", "gpu"}), 2, {"\"gpu\" is not auto, cpu, cuda or cuda:N"});
}

TEST_F(SampleFails, WithFlagsThatAreWrong) {
  expect(with(flat_checkpoint(), {"--promt", "x"}), 2, {"--promt", "did you mean prompt?"});
  expect(with(flat_checkpoint(), {"--guidance-scale", "much"}), 2,
         {"--guidance-scale", "\"much\" is not a finite number"});
  expect(with(flat_checkpoint(), {"--sampler", "ddimm"}), 2,
         {"\"ddimm\" is not one of ddpm|ddim|euler|heun|dpmpp_2m|dpmpp_2m_sde|unipc; did you mean ddim?"});
  expect(with(flat_checkpoint(), {"--sampler", "ddpm", "--ddim-eta", "1"}), 2, {"ddim_eta", "sampler is ddpm"});
  expect(with(flat_checkpoint(), {"--lr", "1"}), 2,
         {"--lr: \"lr\" is no setting of this program; it belongs to training"});
  expect(with(flat_checkpoint(), {"--pad", "fixed:0"}), 2, {"\"fixed:0\" is not one of", "N from 1 to 1000000"});
  expect(with(flat_checkpoint(), {"picture"}), 2, {"\"picture\": sample takes flags only"});
  expect(with(flat_checkpoint(), {"--prompt", "bad \xFF byte"}), 2, {"--prompt", "is not valid UTF-8"});
}

TEST_F(SampleFails, WithoutAPrompt) {
  expect({"--checkpoint", flat_checkpoint()}, 2, {"no prompt: give --prompt TEXT", "--prompts-file FILE"});
  expect({"--checkpoint", flat_checkpoint(), "--prompts-file", folder_.file("gone.txt")}, 3,
         {"gone.txt: No such file"});
  expect({"--checkpoint", flat_checkpoint(), "--prompts-file", folder_.write("blank.txt", "\r\n\n")}, 3,
         {"blank.txt: holds no prompt"});
  expect({"--checkpoint", flat_checkpoint(), "--prompts-file", folder_.write("bytes.txt", "a\nbad \xFF\xC0\xAF\n")}, 3,
         {"bytes.txt:2: \"bad \\xff\\xc0\\xaf\" is not valid UTF-8"});
  expect(with(flat_checkpoint(), {"--negative-prompt", "a", "--negative-prompt", "b"}), 2,
         {"negative_prompt", "2", "1 prompts"});
}

TEST_F(SampleFails, WithSizesThatTheModelCanNotMake) {
  expect(with(flat_checkpoint(), {"--sample-image-size", "33"}), 2, {"sample_image_size: 33 does not divide by 2"});
  expect(with(nested_checkpoint(), {"--sample-image-size", "66"}), 2, {"sample_image_size: 66 does not divide by 4"});
}

TEST_F(SampleFails, WithPicturesToStartFromThatAreNone) {
  const std::string text = folder_.write("text.png", "hello\n");
  expect(with(flat_checkpoint(), {"--init-image", text}), 3, {"text.png: is no picture that can be read here"});
  expect(with(flat_checkpoint(), {"--init-image", folder_.file("gone.png")}), 3, {"gone.png: No such file"});
  expect(with(flat_checkpoint(), {"--from-image", text}), 3, {"text.png: is no PNG file"});
  const auto plain = folder_.path() / "plain.png";
  write_png(plain, Image(2, 2, 3), {{"Title", "mine"}});
  expect(with(flat_checkpoint(), {"--from-image", plain.string()}), 3, {"plain.png: carries no settings of libmdm"});
  write_png(plain, Image(2, 2, 3), {{kPngSettingsKey, "[1"}});
  expect(with(flat_checkpoint(), {"--from-image", plain.string()}), 3, {"plain.png: its settings are no JSON object"});
  write_png(plain, Image(2, 2, 3), {{kPngSettingsKey, "{\"sampler\": \"\\u001b[2J\"}"}});
  expect(with(flat_checkpoint(), {"--from-image", plain.string()}), 2, {"--sampler", "\\x1b[2J"});
}

// Root may write anywhere, but not below a file.
TEST_F(SampleFails, WhereItCanNotWrite) {
  const std::string file = folder_.write("file", "x");
  Words words = with(flat_checkpoint(), {"--sample-dir", file + "/out"});
  expect_failure(sample(words), 1, {file + "/out: can't be made: Not a directory"});
  words.back() = file;
  expect_failure(sample(words), 1, {file + ": "});
  EXPECT_EQ(bytes_of(file), "x");
}

TEST_F(SampleFails, WhenTheDiskIsFullAndListsWhatIsThere) {
  // Pictures of 64x64 noise need about 12 KB, the grid of three more than what is allowed.
  RunOptions options;
  options.file_size_limit = 20000;
  Words words = quick(nested_checkpoint(), folder_.file("some"),
                      {"--prompt", "a", "--num-samples", "3", "--num-inference-steps", "1", "--batch-size", "2"});
  expect_failure(sample(words, options), 1, {"grid.png: can't be written: File too large"});
  EXPECT_EQ(names_in(folder_.path() / "some"), (std::set<std::string>{"sample_000000.png", "sample_000001.png",
                                                                      "sample_000002.png", "lst.json", "index.html"}));
  EXPECT_EQ(captions(folder_.path() / "some").size(), 3u);
  options.file_size_limit = 5000;
  words = quick(nested_checkpoint(), folder_.file("none"), {"--prompt", "a", "--num-inference-steps", "1"});
  expect_failure(sample(words, options), 1, {"sample_000000.png: can't be written: File too large"});
  EXPECT_TRUE(names_in(folder_.path() / "none").empty());  // no half files either
}

TEST_F(SampleFails, WhenTheFileSystemIsFull) {
  RunOptions options;
  std::filesystem::create_directories(folder_.path() / "small");
  options.small_disk = folder_.path() / "small";  // 32 KB: room for two pictures
  const Outcome outcome =
      sample(quick(nested_checkpoint(), options.small_disk.string(),
                   {"--prompt", "a", "--num-samples", "4", "--num-inference-steps", "1", "--batch-size", "1"}),
             options);
  if (outcome.no_small_disk) GTEST_SKIP() << "a file system of our own can't be mounted here";
  expect_failure(outcome, 1, {"sample_000002.png: can't be written: No space left on device"});
}

TEST_F(SampleFails, WhenItsOutputCanNotBeWritten) {
  RunOptions options;
  options.out_file = "/dev/full";
  const Outcome outcome = sample({"--print-config"}, options);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_TRUE(holds(outcome.err, "standard output can't be written")) << outcome.err;
  EXPECT_EQ(checkpoint({"inspect", flat_checkpoint()}, options).code, 1);
}

TEST(SampleInterrupted, KeepsAndListsWhatIsDone) {
  const Folder folder;
  RunOptions options;
  options.interrupt_when = [&] { return std::filesystem::exists(folder.path() / "sample_000001.png"); };
  const Outcome outcome = sample(quick(flat_checkpoint(), folder.path().string(),
                                       {"--prompt", "a cat", "--num-samples", "10000", "--batch-size", "1"}),
                                 options);
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  const auto list = json_of(folder.path() / "lst.json");
  EXPECT_GE(list.size(), 2u);
  EXPECT_LT(list.size(), 10000u);
  std::set<std::string> expected = {"grid.png", "index.html", "lst.json"};
  for (const auto& item : list) {
    expected.insert(item.at(0).get<std::string>());
    EXPECT_EQ(picture(folder.path() / item.at(0).get<std::string>()).width, 32);
  }
  EXPECT_EQ(names_in(folder.path()), expected);
  EXPECT_EQ(outcome.out, std::to_string(list.size()) + " of 10000 pictures in " + folder.path().string() + "\n");
}

TEST(SampleInterrupted, BeforeTheFirstPictureLeavesAnEmptyFolder) {
  const Folder folder;
  RunOptions options;
  options.interrupt_when = [&] { return std::filesystem::exists(folder.path() / "out"); };
  const Outcome outcome = sample(
      quick(flat_checkpoint(), folder.file("out"), {"--prompt", "a cat", "--num-inference-steps", "1000"}), options);
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_TRUE(names_in(folder.path() / "out").empty());
}

}  // namespace
}  // namespace mdm::apps_test
