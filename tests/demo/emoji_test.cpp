// The list of emoji, and (where the font and the libraries are there) their pictures.
#include "mdm/demo/emoji.h"

#include <gtest/gtest.h>

#include <unistd.h>
#include <algorithm>

#include <array>
#include <filesystem>
#include <map>
#include <set>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/demo/dataset.h"
#include "mdm/text/mdm_tokenizer.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

class EmojiListFile : public ::testing::Test {
 protected:
  void SetUp() override { file_ = fs::path(::testing::TempDir()) / concat("mdm_emoji_", ::getpid(), ".txt"); }
  void TearDown() override { fs::remove(file_); }

  std::vector<EmojiEntry> read(const std::string& text) const {
    write_file(file_, text);
    return read_emoji_list(file_);
  }
  std::string error_of(const std::string& text) const {
    try {
      read(text);
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }

  fs::path file_;
};

TEST_F(EmojiListFile, IsRead) {
  const auto entries = read(
      "# emoji-test.txt\n\n# group: Smileys & Emotion\n\n# subgroup: face-smiling\n"
      "1F600    ; fully-qualified     # \xF0\x9F\x98\x80 E1.0 grinning face\n"
      "263A FE0F ; fully-qualified # \xE2\x98\xBA E0.6 smiling face\n"
      "263A ; unqualified # \xE2\x98\xBA E0.6 smiling face\r\n"
      "# group: People & Body\n# subgroup: hands\n"
      "1F44B 1F3FB ; fully-qualified # x E1.0 waving hand: light skin tone\n"
      "0023 FE0F 20E3 ; fully-qualified # # E0.6 keycap: #");
  ASSERT_EQ(entries.size(), 4u);
  EXPECT_EQ(entries[0].name, "grinning face");
  EXPECT_EQ(entries[0].group, "Smileys & Emotion");
  EXPECT_EQ(entries[0].subgroup, "face-smiling");
  EXPECT_EQ(entries[1].sequence, (std::vector<uint32_t>{0x263A}));
  EXPECT_FALSE(entries[1].skin_tone);
  EXPECT_TRUE(entries[2].skin_tone);
  EXPECT_EQ(entries[2].subgroup, "hands");
  EXPECT_EQ(entries[3].sequence, (std::vector<uint32_t>{0x23, 0x20E3}));
  EXPECT_EQ(entries[3].name, "keycap: #");
}

TEST_F(EmojiListFile, WithBadLinesIsRefusedWithTheirNumber) {
  EXPECT_NE(error_of("# x\nXYZ ; fully-qualified # x E1.0 name\n").find(":2: 'XYZ'"), std::string::npos);
  EXPECT_NE(error_of("; fully-qualified # x E1.0 name").find("no code point"), std::string::npos);
  EXPECT_NE(error_of("110000 ; fully-qualified # x E1.0 name").find("110000"), std::string::npos);
  EXPECT_NE(error_of("FE0F ; fully-qualified # x E1.0 name").find("no code point"), std::string::npos);
  EXPECT_NE(error_of("1F600 ; fully-qualified # x"), "");
  EXPECT_NE(error_of("1F600 ; fully-qualified"), "");
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("hello\n"), "");
  std::string many;
  for (int i = 0; i < 40; ++i) many += "1F600 ";
  EXPECT_NE(error_of(many + "; fully-qualified # x E1.0 name"), "");
}

TEST(EmojiCaption, IsLowerCase) {
  EXPECT_EQ(emoji_caption({{1}, "flag: North Korea", "", ""}), "flag: north korea");
  EXPECT_EQ(emoji_caption({{1}, "flag: \xC3\x85land Islands", "", ""}), "flag: \xC3\xA5land islands");
  EXPECT_EQ(emoji_caption({{1},
                           "pi\xC3\xB1"
                           "ata",
                           "",
                           ""}),
            "pi\xC3\xB1"
            "ata");
  EXPECT_EQ(emoji_caption({{1}, "\xC3\x97", "", ""}), "\xC3\x97");
}

TEST(SquarePicture, KeepsShapeAndPutsItInTheMiddle) {
  const Image square = square_picture(Image(40, 20, 3, 0), 64, 0.1);
  EXPECT_EQ(square.width, 64);
  EXPECT_EQ(square.height, 64);
  EXPECT_EQ(square.row(32)[3 * 32], 0);
  EXPECT_EQ(square.row(2)[3 * 32], 255);
  EXPECT_EQ(square.row(32)[0], 255);
  size_t dark = 0;
  for (size_t i = 0; i < square.pixels.size(); i += 3) dark += square.pixels[i] < 128 ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(dark), 64.0 * 64 * 40 * 20 / (48 * 48), 60);
}

// The real files, where Debian's packages are installed.
class RealEmoji : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!EmojiFont::available()) GTEST_SKIP() << "a build without FreeType and HarfBuzz";
    if (!fs::exists(kEmojiListFile) || !fs::exists(kEmojiFontFile)) {
      GTEST_SKIP() << "install fonts-noto-color-emoji and unicode-data";
    }
  }
};

TEST_F(RealEmoji, AllHaveABitmap) {
  const auto entries = read_emoji_list(kEmojiListFile);
  const EmojiFont font(kEmojiFontFile);
  std::map<std::string, int> groups;
  std::set<std::string> captions;
  std::set<std::vector<uint8_t>> distinct;
  size_t drawn = 0, plain = 0;
  for (const EmojiEntry& entry : entries) {
    const auto bitmap = font.draw(entry.sequence);
    if (!bitmap) continue;
    ++drawn;
    distinct.insert(bitmap->pixels);
    if (entry.skin_tone) continue;
    ++plain;
    ++groups[entry.group];
    captions.insert(emoji_caption(entry));
  }
  std::printf("%zu entries, %zu with a bitmap, %zu without skin tone, %zu distinct pictures\n", entries.size(), drawn,
              plain, distinct.size());
  EXPECT_EQ(drawn, entries.size());
  EXPECT_EQ(captions.size(), plain);
  // Of unicode-data 15.0.0, which came with Debian 12.
  if (entries.size() != 3655) GTEST_SKIP() << "another version of Unicode";
  EXPECT_EQ(plain, 1870u);
  EXPECT_EQ(distinct.size(), 3641u);
  const std::map<std::string, int> expected = {
      {"People & Body", 363},    {"Flags", 269},           {"Objects", 261},
      {"Symbols", 223},          {"Travel & Places", 218}, {"Smileys & Emotion", 166},
      {"Animals & Nature", 152}, {"Food & Drink", 133},    {"Activities", 85}};
  EXPECT_EQ(groups, expected);
}

TEST_F(RealEmoji, HaveTheColorsOfWhatTheyShow) {
  const EmojiFont font(kEmojiFontFile);
  const auto middle_of = [&](const std::vector<uint32_t>& sequence) {
    const auto bitmap = font.draw(sequence);
    EXPECT_TRUE(bitmap.has_value());
    const Image small = square_picture(*bitmap, 32);
    EXPECT_EQ(small.row(0)[0], 255);  // the corners are white
    EXPECT_EQ(small.row(31)[95], 255);
    const uint8_t* pixel = small.row(16) + 3 * 16;
    return std::array<int, 3>{pixel[0], pixel[1], pixel[2]};
  };
  const auto red = middle_of({0x1F534});
  EXPECT_GT(red[0], 180);
  EXPECT_LT(red[1] + red[2], 160);
  const auto blue = middle_of({0x1F535});
  EXPECT_GT(blue[2], 130);
  EXPECT_LT(blue[0], 110);
  const auto green = middle_of({0x1F7E9});
  EXPECT_GT(green[1], green[0] + 40);
  EXPECT_FALSE(font.draw({'a'}).has_value());
  EXPECT_FALSE(font.draw({0x1F534, 0x1F535}).has_value()) << "two glyphs";
  EXPECT_FALSE(font.draw({}).has_value());
}

TEST_F(RealEmoji, BrokenFontsAreRefused) {
  const fs::path file = fs::path(::testing::TempDir()) / concat("mdm_font_", ::getpid(), ".ttf");
  const auto whole = FileBytes::open(kEmojiFontFile);
  for (const size_t size : {size_t{0}, size_t{10}, size_t{1000}}) {
    write_file(file, whole->view().substr(0, size));
    EXPECT_THROW(EmojiFont{file}, DataError) << size;
  }
  fs::remove(file);
  EXPECT_THROW(EmojiFont{file}, DataError);
}

TEST_F(RealEmoji, AreTheirOwnNearestPicturesAndSpellTheirWords) {
  const EmojiPictures emoji(kEmojiListFile, kEmojiFontFile, 32);
  EXPECT_EQ(emoji.without_bitmap(), 0u);
  for (size_t i = 0; i < emoji.captions().size(); i += 37) {
    const auto nearest = emoji.nearest(emoji.pictures()[i], emoji.captions()[i]);
    EXPECT_TRUE(nearest.is_named) << emoji.captions()[i];
    EXPECT_TRUE(nearest.is_known);
    EXPECT_FALSE(emoji.nearest(emoji.pictures()[i], "nothing of the kind").is_known);
    const size_t other = (i + 900) % emoji.captions().size();
    EXPECT_FALSE(emoji.nearest(emoji.pictures()[i], emoji.captions()[other]).is_named);
  }
  const std::string text = caption_vocabulary(emoji.captions());
  const auto tokenizer = MdmTokenizer::from_vocab_text(text, "words");
  size_t longest = 0;
  for (const std::string& caption : emoji.captions()) {
    TokenLimits limits;
    limits.max_token_length = 64;
    const auto ids = tokenizer.encode_inference(caption, limits);
    const auto words = static_cast<size_t>(1 + std::count(caption.begin(), caption.end(), ' '));
    EXPECT_EQ(ids.size(), words + 1) << caption;  // and the end
    longest = std::max(longest, ids.size());
  }
  std::printf("%lld pieces, at most %zu tokens\n", static_cast<long long>(tokenizer.vocab_size()), longest);
  EXPECT_LE(longest, 16u);  // configs/demo/emoji_nested_64.yaml: joint_tokens
  if (emoji.captions().size() == 1870) {
    EXPECT_EQ(text, read_text_file(fs::path(MDM_PROJECT_DIR) / "configs/demo/emoji.vocab"));
  }
}

}  // namespace
}  // namespace mdm
