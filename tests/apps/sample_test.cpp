// The program `sample` on models with fresh weights: what it writes, what its flags do, and that it does the
// same again.
#include "apps/workshop.h"
#include "mdm/media/png.h"
#include "support/pictures.h"

namespace mdm::apps_test {
namespace {

using test_support::contrast;
using test_support::largest_difference;
using test_support::psnr;

const std::string kNastyPrompt = "<script>alert(\"x & 'y'\")</script> \xC3\xA9 \xF0\x9F\xA6\x8A";
const std::string kNastyEscaped =
    "&lt;script&gt;alert(&quot;x &amp; &#39;y&#39;&quot;)&lt;/script&gt; \xC3\xA9 \xF0\x9F\xA6\x8A";

uint32_t big_endian(const std::string& bytes, size_t at) {
  uint32_t number = 0;
  for (size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<unsigned char>(bytes.at(at + i));
  return number;
}

// Nested model, two prompts, two pictures each, and everything that can be written beside them.
const Words kEverything = {"--prompt",
                           kNastyPrompt,
                           "--prompt",
                           "a cat",
                           "--negative-prompt",
                           "a dog",
                           "--num-samples",
                           "2",
                           "--batch-size",
                           "3",
                           "--output-inner",
                           "--animation",
                           "apng",
                           "--num-inference-steps",
                           "3",
                           "--animation-every",
                           "2",
                           "--guidance-scale",
                           "2.5"};

class EverythingWritten : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new Folder;
    outcome_ = new Outcome(sample(quick(nested_checkpoint(), out().string(), kEverything)));
  }
  static void TearDownTestSuite() {
    delete outcome_;
    delete folder_;
  }
  static std::filesystem::path out() { return folder_->path() / "new" / "out"; }

  static Folder* folder_;
  static Outcome* outcome_;
};
Folder* EverythingWritten::folder_ = nullptr;
Outcome* EverythingWritten::outcome_ = nullptr;

TEST_F(EverythingWritten, SaysWhereThePicturesAre) {
  expect_success(*outcome_);
  EXPECT_EQ(outcome_->out, "4 of 4 pictures in " + out().string() + "\n");
  EXPECT_TRUE(holds(outcome_->err, "denoising: 6/6")) << outcome_->err;  // two batches of three steps
}

TEST_F(EverythingWritten, LeavesTheseFilesAndNoOthers) {
  std::set<std::string> expected = {"grid.png", "lst.json", "index.html"};
  for (const char* number : {"0", "1", "2", "3"}) {
    for (const char* suffix : {".png", "_levels.png", "_path.png"})
      expected.insert("sample_00000" + (number + std::string(suffix)));
  }
  EXPECT_EQ(names_in(out()), expected);
}

TEST_F(EverythingWritten, HoldsPicturesOfTheModelsSizes) {
  const Image first = picture(out() / "sample_000000.png");
  EXPECT_EQ(first.width, 64);
  EXPECT_EQ(first.height, 64);
  EXPECT_EQ(first.channels, 3);
  EXPECT_GT(contrast(first), 10);
  // All levels, side by side: 32 and 64 pixels.
  const Image levels = picture(out() / "sample_000000_levels.png");
  EXPECT_GE(levels.width, 64 + 32);
  EXPECT_GE(levels.height, 64);
  const Image grid = picture(out() / "grid.png");
  EXPECT_EQ(grid.width, 2 * 64 + 3 * 2);
  EXPECT_EQ(grid.height, 2 * 64 + 3 * 2);
  EXPECT_LT(psnr(first, picture(out() / "sample_000001.png")), 30);  // another seed, another picture
}

TEST_F(EverythingWritten, ShowsTheDenoisingPathAsAnAnimation) {
  const std::string path = bytes_of(out() / "sample_000003_path.png");
  const size_t control = path.find("acTL");
  ASSERT_NE(control, std::string::npos);
  EXPECT_EQ(big_endian(path, control + 4), 2u);  // step 2, and the last one
}

TEST_F(EverythingWritten, ListsThePicturesWithTheirPrompts) {
  const auto list = json_of(out() / "lst.json");
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0], nlohmann::json::array({"sample_000000.png", kNastyPrompt}));
  EXPECT_EQ(list[1], nlohmann::json::array({"sample_000001.png", kNastyPrompt}));
  EXPECT_EQ(list[3], nlohmann::json::array({"sample_000003.png", "a cat"}));
}

TEST_F(EverythingWritten, EscapesPromptsInTheGallery) {
  const std::string page = bytes_of(out() / "index.html");
  EXPECT_TRUE(holds(page, kNastyEscaped));
  EXPECT_FALSE(holds(page, "<script>alert"));
  EXPECT_TRUE(holds(page, "sample_000003.png"));
}

TEST_F(EverythingWritten, CarriesTheSettingsInEachPicture) {
  const auto settings = settings_in(out() / "sample_000002.png");
  EXPECT_EQ(settings.at("prompt"), "a cat");
  EXPECT_EQ(settings.at("negative_prompt"), "a dog");
  EXPECT_EQ(settings.at("seed"), 7);
  EXPECT_EQ(settings.at("guidance_scale"), 2.5);
  EXPECT_EQ(settings.at("num_inference_steps"), 3);
  EXPECT_EQ(settings.at("sampler"), "ddpm");
  EXPECT_EQ(settings.at("model"), "nested_unet");
  EXPECT_EQ(settings.at("checkpoint"), "nested.pth");  // the name alone, not the path
  EXPECT_EQ(settings.at("sample_image_size"), 64);
  const PngText text = read_png_text(out() / "sample_000000.png");
  const std::string* readable = find_png_text(text, kPngParametersKey);
  ASSERT_NE(readable, nullptr);
  EXPECT_TRUE(
      holds(*readable, kNastyPrompt + "\nNegative prompt: a dog\nSteps: 3, Sampler: ddpm, CFG scale: 2.5, Seed: 5"));
}

TEST_F(EverythingWritten, IsTheSameToTheByteTheNextTime) {
  const Folder again;
  expect_success(sample(quick(nested_checkpoint(), again.path().string(), kEverything)));
  ASSERT_EQ(names_in(again.path()), names_in(out()));
  for (const std::string& name : names_in(out()))
    EXPECT_EQ(bytes_of(again.path() / name), bytes_of(out() / name)) << name;
}

TEST_F(EverythingWritten, GivesPictureIOfARunTheSeedPlusI) {
  const Folder alone;
  Words words = quick(nested_checkpoint(), alone.path().string(),
                      {"--prompt", "a cat", "--negative-prompt", "a dog", "--num-inference-steps", "3",
                       "--guidance-scale", "2.5", "--no-grid", "--no-gallery"});
  words.insert(words.end(), {"--seed", "8"});
  expect_success(sample(words));
  const Image here = picture(alone.path() / "sample_000000.png"), there = picture(out() / "sample_000003.png");
  EXPECT_LE(largest_difference(here, there), 2);
  EXPECT_GE(psnr(here, there), 50);
  EXPECT_EQ(names_in(alone.path()), (std::set<std::string>{"sample_000000.png", "lst.json"}));
}

TEST(SampleFlags, OfEverySettingReachThePictureAndItsSettings) {
  const Folder folder;
  const Outcome outcome = sample(quick(flat_checkpoint(), folder.path().string(),
                                       {"--prompt=a boat",
                                        "--set",
                                        "guidance_scale=1",
                                        "--sampler",
                                        "ddim",
                                        "--ddim-eta=0.25",
                                        "--threshold",
                                        "dynamic_if",
                                        "--timestep-spacing",
                                        "trailing",
                                        "--precision",
                                        "bf16",
                                        "--pad",
                                        "fixed:16",
                                        "--no-gallery",
                                        "--animation",
                                        "webp",
                                        "--sample.guidance_rescale",
                                        "0.5",
                                        "--device",
                                        "cpu",
                                        "--threads",
                                        "1"}));
  expect_success(outcome);
  const auto settings = settings_in(folder.path() / "sample_000000.png");
  EXPECT_EQ(settings.at("guidance_scale"), 1.0);
  EXPECT_EQ(settings.at("sampler"), "ddim");
  EXPECT_EQ(settings.at("ddim_eta"), 0.25);
  EXPECT_EQ(settings.at("threshold"), "DYNAMIC_IF");
  EXPECT_EQ(settings.at("timestep_spacing"), "trailing");
  EXPECT_EQ(settings.at("precision"), "bf16");
  EXPECT_EQ(settings.at("pad"), "fixed:16");
  EXPECT_EQ(settings.at("guidance_rescale"), 0.5);
  EXPECT_EQ(names_in(folder.path()),
            (std::set<std::string>{"sample_000000.png", "sample_000000_path.webp", "lst.json"}));
  const std::string moving = bytes_of(folder.path() / "sample_000000_path.webp");
  EXPECT_EQ(moving.substr(0, 4), "RIFF");
  EXPECT_EQ(moving.substr(8, 4), "WEBP");
  EXPECT_TRUE(holds(moving, "ANIM"));
}

TEST(SampleFlags, CanSwitchOffAllThatIsWrittenBesideThePictures) {
  const Folder folder;
  expect_success(sample(quick(flat_checkpoint(), folder.path().string(),
                              {"--prompt", "a", "--prompt", "b", "--no-grid", "--no-gallery", "--no-metadata"})));
  EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"sample_000000.png", "sample_000001.png", "lst.json"}));
  EXPECT_TRUE(read_png_text(folder.path() / "sample_000000.png").empty());
}

TEST(SampleFlags, ADrawnSeedIsToldAndMakesTheSamePictureAgain) {
  const Folder folder;
  Words words = {"--checkpoint", flat_checkpoint(), "--num-inference-steps", "1", "--prompt", "a", "--sample-dir"};
  Words first = words, second = words;
  first.push_back(folder.file("first"));
  const Outcome drawn = sample(first);
  expect_success(drawn);
  const auto seed = settings_in(folder.path() / "first/sample_000000.png").at("seed").get<int64_t>();
  EXPECT_TRUE(holds(drawn.err, "seed: " + std::to_string(seed) + "\n")) << drawn.err;
  second.insert(second.end(), {folder.file("second"), "--seed", std::to_string(seed)});
  expect_success(sample(second));
  EXPECT_EQ(bytes_of(folder.path() / "first/sample_000000.png"), bytes_of(folder.path() / "second/sample_000000.png"));
}

TEST(SampleFromImage, MakesTheSamePictureAgain) {
  const Folder folder;
  const Words settings = {"--prompt",
                          kNastyPrompt,
                          "--negative-prompt",
                          "a dog, red",
                          "--guidance-scale",
                          "3.25",
                          "--guidance-rescale",
                          "0.25",
                          "--guidance-start",
                          "0.2",
                          "--guidance-end",
                          "0.9",
                          "--sampler",
                          "ddim",
                          "--ddim-eta",
                          "0.5",
                          "--threshold",
                          "DYNAMIC",
                          "--timestep-spacing",
                          "leading",
                          "--pad",
                          "fixed:40",
                          "--precision",
                          "bf16",
                          "--sample-image-size",
                          "16",
                          "--no-gallery"};
  expect_success(sample(quick(flat_checkpoint(), folder.file("a"), settings)));
  const std::string made = folder.file("a/sample_000000.png");
  const Words restore = {"--checkpoint", flat_checkpoint(), "--from-image", made, "--no-gallery", "--sample-dir"};
  Words again = restore, other = restore;
  again.push_back(folder.file("b"));
  expect_success(sample(again));
  EXPECT_EQ(bytes_of(folder.file("b/sample_000000.png")), bytes_of(made));
  EXPECT_EQ(picture(made).width, 16);

  // Flags count more, and those for one of several settings that belong together replace all of them.
  other.insert(other.end(), {folder.file("c"), "--prompt", "a cat", "--negative_prompt", "a bird", "--sampler", "ddpm",
                             "--seed", "77", "--precision", "fp32"});
  expect_success(sample(other));
  auto changed = settings_in(folder.file("c/sample_000000.png"));
  EXPECT_EQ(changed.at("prompt"), "a cat");
  EXPECT_EQ(changed.at("negative_prompt"), "a bird");
  EXPECT_EQ(changed.at("sampler"), "ddpm");
  EXPECT_EQ(changed.count("ddim_eta"), 0u);
  EXPECT_EQ(changed.at("seed"), 77);
  EXPECT_EQ(changed.at("guidance_scale"), 3.25);
  EXPECT_EQ(captions(folder.path() / "c"), std::vector<std::string>{"a cat"});
}

TEST(SampleFromImage, TakesSettingsOfSamplingAloneFromAFileThatAnyoneMayHaveWritten) {
  const Folder folder;
  const nlohmann::json hostile = {{"prompt", ""},
                                  {"seed", 3},
                                  {"num_inference_steps", 1},
                                  {"checkpoint", "/elsewhere.pth"},
                                  {"sample_dir", folder.file("elsewhere")},
                                  {"prompts_file", "/etc/passwd"},
                                  {"num_samples", 100000},
                                  {"sampler", {{"deep", 1}}},
                                  {"text_model", "/elsewhere"}};
  write_png(folder.file("hostile.png"), Image(2, 2, 3), {{kPngSettingsKey, hostile.dump()}});
  expect_success(sample({"--checkpoint", flat_checkpoint(), "--from-image", folder.file("hostile.png"), "--sample-dir",
                         folder.file("out"), "--no-gallery"}));
  EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"hostile.png", "out"}));
  EXPECT_EQ(captions(folder.path() / "out"), std::vector<std::string>{""});
  EXPECT_EQ(settings_in(folder.file("out/sample_000000.png")).at("seed"), 3);
}

TEST(SampleInitImage, IsKeptTheMoreTheSmallerTheStrength) {
  const Folder folder;
  Image start(48, 32, 3);
  for (int y = 0; y < start.height; ++y) {
    for (int x = 0; x < start.width; ++x) {
      for (int c = 0; c < 3; ++c) start.row(y)[x * 3 + c] = static_cast<uint8_t>(4 * x + 20 * c);
    }
  }
  write_png(folder.file("start.png"), start);
  const auto made = [&](const std::string& name, const std::string& strength) {
    const Outcome outcome =
        sample(quick(flat_checkpoint(), folder.file(name),
                     {"--prompt", "a boat", "--init-image", folder.file("start.png"), "--strength", strength,
                      "--num-inference-steps", "10", "--guidance-scale", "1", "--no-gallery"}));
    expect_success(outcome);
    EXPECT_EQ(settings_in(folder.path() / name / "sample_000000.png").at("strength"), std::stod(strength));
    return outcome;
  };
  EXPECT_TRUE(holds(made("little", "0.1").err, "denoising: 1/1"));
  EXPECT_TRUE(holds(made("all", "1").err, "denoising: 10/10"));
  Image middle(32, 32, 3);
  for (int y = 0; y < 32; ++y) std::copy_n(start.row(y) + 8 * 3, 32 * 3, middle.row(y));
  const double little = psnr(picture(folder.file("little/sample_000000.png")), middle);
  const double all = psnr(picture(folder.file("all/sample_000000.png")), middle);
  EXPECT_GT(little, all);

  const Outcome restored =
      sample({"--checkpoint", flat_checkpoint(), "--from-image", folder.file("little/sample_000000.png"),
              "--sample-dir", folder.file("again"), "--no-gallery"});
  expect_success(restored);
  EXPECT_TRUE(holds(restored.err, "was itself made from a picture; give that with --init-image")) << restored.err;
}

TEST(SamplePrompts, ComeFromTextFilesAndTables) {
  const Folder folder;
  const std::string text = folder.write("prompts.txt",
                                        "\xEF\xBB\xBF"
                                        "a cat\r\n\r\n<b>a \"dog\"</b>\r\nno end");
  const std::string table = folder.write(
      "prompts.tsv", "image\tcaption\textra\n1.jpg\t\"a \"\"red\"\" house\"\tx\n2.jpg\tt\xC3\xA9l\xC3\xA9\ty\n");
  const Words one = {"--num-inference-steps", "1", "--guidance-scale", "1", "--no-grid"};
  Words words = quick(flat_checkpoint(), folder.file("a"), one);
  words.insert(words.end(), {"--prompts-file", text, "--prompt", "first"});
  expect_success(sample(words));
  EXPECT_EQ(captions(folder.path() / "a"), (std::vector<std::string>{"first", "a cat", "<b>a \"dog\"</b>", "no end"}));
  words = quick(flat_checkpoint(), folder.file("b"), one);
  words.insert(words.end(), {"--test-file-list", table, "--num-samples", "2"});
  expect_success(sample(words));
  EXPECT_EQ(captions(folder.path() / "b"), (std::vector<std::string>{"a \"red\" house", "a \"red\" house",
                                                                     "t\xC3\xA9l\xC3\xA9", "t\xC3\xA9l\xC3\xA9"}));
}

TEST(SamplePrompts, OfAnyCharactersAndLengthsMakePictures) {
  const Folder folder;
  std::string lines = std::string(10000, 'x') + "\n";  // cut to the limits of the config
  lines += "odd \xEF\xBF\xBD \xF4\x8F\xBF\xBF\nz" + std::string(1, '\0') + "ero\n\x1B[31mred\n \n";
  const std::string file = folder.write("odd.txt", lines);
  const Outcome outcome = sample(quick(flat_checkpoint(), folder.file("out"),
                                       {"--prompts-file", file, "--num-inference-steps", "1", "--prompt", ""}));
  expect_success(outcome);
  EXPECT_EQ(outcome.err.find('\x1B'), std::string::npos);
  const auto list = captions(folder.path() / "out");
  ASSERT_EQ(list.size(), 6u);
  EXPECT_EQ(list[0], "");  // no prompt: as guidance's other half sees it
  EXPECT_EQ(list[1], std::string(10000, 'x'));
  EXPECT_EQ(list[2], "odd \xEF\xBF\xBD \xF4\x8F\xBF\xBF");
  const std::string page = bytes_of(folder.path() / "out/index.html");
  EXPECT_EQ(page.find('\x1B'), std::string::npos);
  EXPECT_EQ(page.find('\0'), std::string::npos);
}

}  // namespace
}  // namespace mdm::apps_test
