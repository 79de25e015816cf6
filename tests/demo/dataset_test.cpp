// Data sets that were written, read back by the reader that training uses.
#include "mdm/demo/dataset.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/data/dataset.h"
#include "mdm/data/tar.h"
#include "mdm/data/tsv.h"
#include "mdm/demo/dataset_job.h"
#include "mdm/demo/emoji.h"
#include "mdm/demo/shapes.h"
#include "mdm/media/decode.h"
#include "mdm/media/gallery.h"
#include "mdm/media/png.h"
#include "mdm/text/mdm_tokenizer.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

class DemoFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::path(::testing::TempDir()) / "mdm_demo_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
};

using DemoShards = DemoFolder;
using DemoShapes = DemoFolder;
using DemoProgram = DemoFolder;

TEST_F(DemoShards, KeepAwkwardCaptions) {
  const std::vector<std::string> captions = {
      "", "a tab\there", "a \"quote\"", "two\nlines\r\n", "plain", "\xC3\xA9t\xC3\xA9", " "};
  ShardWriter writer(folder_ / "list.tsv", "odd", {"label"}, 3);
  for (size_t i = 0; i < captions.size(); ++i) {
    writer.add(Image(4, 5, 3, static_cast<uint8_t>(i)), captions[i], {concat("l", i)});
  }
  EXPECT_THROW(writer.add(Image(4, 5, 3), "x", {}), Error);
  writer.finish();
  EXPECT_EQ(read_text_file(folder_ / "list.tsv"), "filename\nodd-00000.tsv\nodd-00001.tsv\nodd-00002.tsv\n");
  EXPECT_EQ(read_text_file(folder_ / "odd-00002.tsv"), "tar\tfile\tcaption\tlabel\nodd-00002.tar\t00000.png\t \tl6\n");
  EXPECT_NE(read_text_file(folder_ / "odd-00000.tsv").find("00000.png\t\"\"\tl0\n"), std::string::npos);

  const auto dataset = Dataset::open((folder_ / "list.tsv").string());
  ASSERT_EQ(dataset->size(), captions.size());
  const TarIndex tar = TarIndex::open(folder_ / "odd-00001.tar");
  EXPECT_EQ(tar.members().size(), 6u);
  EXPECT_NE(tar.find("00002.txt"), nullptr);
  for (size_t i = 0; i < captions.size(); ++i) {
    EXPECT_EQ(dataset->caption(i), captions[i]);
    std::vector<uint8_t> bytes;
    dataset->read_image(i, bytes);
    EXPECT_EQ(decode_image(bytes.data(), bytes.size(), "picture").pixels,
              Image(4, 5, 3, static_cast<uint8_t>(i)).pixels);
  }
}

TEST_F(DemoShards, NeedSamples) {
  ShardWriter writer(folder_ / "list.tsv", "none", {}, 3);
  EXPECT_THROW(writer.finish(), Error);
  EXPECT_FALSE(fs::exists(folder_ / "list.tsv"));
}

ShapeDataset small_dataset(const fs::path& folder) {
  ShapeDataset settings;
  settings.folder = folder;
  settings.count = 60;
  settings.validation_count = 7;
  settings.shard_size = 25;
  settings.seed = 5;
  return settings;
}

TEST_F(DemoShapes, AreReadBackAsTheyWereDrawn) {
  const WrittenDataset written = write_shape_dataset(small_dataset(folder_));
  EXPECT_EQ(written.train_samples, 60u);
  EXPECT_EQ(written.validation_samples, 7u);
  const auto train = Dataset::open(written.train_list.string());
  ASSERT_EQ(train->size(), 60u);
  for (size_t i = 0; i < train->size(); ++i) {
    const Scene scene = make_scene(5, i);
    EXPECT_EQ(train->caption(i), caption_of(scene.text));
    std::vector<uint8_t> bytes;
    train->read_image(i, bytes);
    EXPECT_EQ(decode_image(bytes.data(), bytes.size(), "picture").pixels, render_scene(scene, 32).pixels);
  }
  EXPECT_EQ(Dataset::open(written.validation_list.string())->size(), 7u);
}

TEST_F(DemoShapes, AreTheSameBytesEachTime) {
  write_shape_dataset(small_dataset(folder_ / "a"));
  write_shape_dataset(small_dataset(folder_ / "b"));
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "a")) {
    ++files;
    EXPECT_EQ(read_text_file(entry.path()), read_text_file(folder_ / "b" / entry.path().filename())) << entry.path();
  }
  EXPECT_EQ(files, 11u);  // 3 + 1 shards of two files, 2 lists, the vocabulary
}

std::string spelled(const MdmTokenizer& tokenizer, const std::string& caption) {
  TokenLimits limits;
  limits.max_token_length = 64;
  std::string text;
  for (const int32_t id : tokenizer.encode_inference(caption, limits)) {
    text += concat(text.empty() ? "" : "|", tokenizer.piece(id));
  }
  return text;
}

// One token a word, each with the space in front of it, and the end.
std::string word_by_word(const std::string& caption) {
  std::string text = " ";
  for (const char c : caption) text += c == ' ' ? std::string("| ") : std::string(1, c);
  return text + "|</s>";
}

TEST_F(DemoShapes, HaveAVocabularyOfTheirWords) {
  const WrittenDataset written = write_shape_dataset(small_dataset(folder_));
  const auto tokenizer = MdmTokenizer::from_vocab(written.vocabulary);
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
  EXPECT_EQ(tokenizer.bos_id(), 2);
  for (int a = 0; a < kObjectKinds; ++a) {
    for (int b = 0; b < kObjectKinds; ++b) {
      SceneText text = {{ObjectKind::from_number(a)}, Relation::kNone};
      if (a != b)
        text = {{ObjectKind::from_number(a), ObjectKind::from_number(b)}, static_cast<Relation>(1 + (a + b) % 4)};
      const std::string caption = caption_of(text);
      ASSERT_EQ(spelled(tokenizer, caption), word_by_word(caption));
    }
  }
  EXPECT_EQ(spelled(tokenizer, ""), " |</s>");
  EXPECT_EQ(spelled(tokenizer, "a pig"), " a| |p|i|g|</s>");
  // The configs name a file of the same words, so that models can be made before the data.
  EXPECT_EQ(read_text_file(written.vocabulary),
            read_text_file(fs::path(MDM_PROJECT_DIR) / "configs/demo/shapes.vocab"));
}

TEST(DemoVocabulary, HoldsWordsWithMarksAndOtherAlphabets) {
  const std::string text = caption_vocabulary({"flag: c\xC3\xB4te d\xE2\x80\x99ivoire", "keycap: #",
                                               "o\xE2\x80\x99"
                                               "clock"});
  const auto tokenizer = MdmTokenizer::from_vocab_text(text, "words");
  EXPECT_EQ(spelled(tokenizer, "flag: c\xC3\xB4te d\xE2\x80\x99ivoire"),
            word_by_word("flag: c\xC3\xB4te d\xE2\x80\x99ivoire"));
  EXPECT_EQ(spelled(tokenizer, "keycap: #"), word_by_word("keycap: #"));
  EXPECT_EQ(spelled(tokenizer, "\xC3\xB4"), " |\xC3\xB4|</s>");
}

struct Outcome {
  int code = 0;
  std::string out, err;
};

Outcome demo_dataset(const std::vector<std::string>& arguments) {
  Outcome outcome;
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  outcome.code = run_app(arguments, demo_dataset_app_info(), run_demo_dataset);
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

TEST_F(DemoProgram, WritesShapes) {
  const auto outcome = demo_dataset({"shapes", "--output-dir", (folder_ / "d").string(), "--count", "12", "--side",
                                     "64", "--validation-count=0", "--two-objects", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto dataset = Dataset::open((folder_ / "d/train.tsv").string());
  ASSERT_EQ(dataset->size(), 12u);
  EXPECT_EQ(parse_caption(dataset->caption(11)).objects.size(), 2u);
  EXPECT_FALSE(fs::exists(folder_ / "d/validation.tsv"));
  EXPECT_NE(outcome.out.find("held-out-pairs: 8 captions of one object"), std::string::npos) << outcome.out;
}

TEST_F(DemoProgram, WritesPromptsOfASplitAndJudgesPictures) {
  const auto prompts = (folder_ / "prompts.txt").string();
  for (const char* split : {"seen", "held-out-pairs", "held-out-combinations"}) {
    ASSERT_EQ(demo_dataset({"prompts", "--split", split, "--count", "20", "--output", prompts}).code, 0);
    // Every picture is right but for three: two of another scene, and one without anything.
    std::ifstream lines(prompts);
    std::vector<GalleryItem> items;
    for (std::string line; std::getline(lines, line);) {
      const SceneText text = parse_caption(line);
      EXPECT_EQ(split_of(text), parse_split(split));
      Image image = render_scene(place_scene(text, 9, items.size()), 32);
      if (items.size() == 3) image = render_scene(place_scene(parse_caption("a cyan cross"), 9, 1), 32);
      if (items.size() == 4) image = Image(32, 32, 3, 200);
      items.push_back({concat("p", items.size() + 100, ".png"), line});
      write_png(folder_ / items.back().path, image);
    }
    ASSERT_EQ(items.size(), 20u);
    write_file(folder_ / "lst.json", gallery_json(items));
    const auto judged = demo_dataset({"judge", "--images", folder_.string(), "--details"});
    ASSERT_EQ(judged.code, 0) << judged.err;
    const auto report = nlohmann::json::parse(judged.out);
    EXPECT_EQ(report["pictures"], 20);
    EXPECT_EQ(report["right"], 18) << judged.out;
    EXPECT_EQ(report["splits"].size(), 1u);
    EXPECT_TRUE(report["splits"].contains(split)) << judged.out;
    EXPECT_EQ(report["verdicts"].size(), 20u);
    EXPECT_EQ(report["verdicts"][4]["failure"], "count");

    fs::remove(folder_ / "lst.json");
    const auto by_prompts = demo_dataset({"judge", "--images", folder_.string(), "--prompts", prompts});
    ASSERT_EQ(by_prompts.code, 0) << by_prompts.err;
    EXPECT_EQ(nlohmann::json::parse(by_prompts.out)["right"], 18);
  }
}

TEST_F(DemoProgram, RefusesWhatItCantDo) {
  const auto code_of = [](const std::vector<std::string>& arguments) { return demo_dataset(arguments).code; };
  EXPECT_EQ(code_of({}), 2);
  EXPECT_EQ(code_of({"shape"}), 2);
  EXPECT_EQ(code_of({"shapes"}), 2);
  EXPECT_EQ(code_of({"shapes", "--output-dir", folder_.string(), "--count", "none"}), 2);
  EXPECT_EQ(code_of({"shapes", "--output-dir", folder_.string(), "--two-objects", "1.5"}), 2);
  EXPECT_EQ(code_of({"shapes", "--output-dir", folder_.string(), "--sides", "32"}), 2);
  EXPECT_EQ(code_of({"prompts", "--split", "train"}), 2);
  EXPECT_EQ(code_of({"judge", "--images", (folder_ / "gone").string()}), 3);
  EXPECT_EQ(code_of({"judge", "--images", folder_.string()}), 3);
  EXPECT_EQ(code_of({"emoji", "--output-dir", folder_.string(), "--font", (folder_ / "gone.ttf").string()}),
            EmojiFont::available() ? 3 : 2);
  for (const char* list : {"{}", "[[1,2]]", "[[\"x.png\"]]", "[", "[]", "[[\"x.png\",\"a red circle\"]]"}) {
    write_file(folder_ / "lst.json", list);
    EXPECT_EQ(code_of({"judge", "--images", folder_.string()}), 3) << list;
  }
  write_png(folder_ / "x.png", Image(32, 32, 3, 255));
  write_file(folder_ / "lst.json", "[[\"x.png\",\"a red cow\"]]");
  EXPECT_EQ(code_of({"judge", "--images", folder_.string()}), 3);
}

}  // namespace
}  // namespace mdm
