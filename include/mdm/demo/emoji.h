// Emoji as captioned pictures: the names of Unicode's emoji-test.txt, the colour bitmaps of a font with a CBDT table
// (Debian: fonts-noto-color-emoji, unicode-data).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

struct EmojiEntry {
  std::vector<uint32_t> sequence;  ///< code points, without U+FE0F
  std::string name;                ///< as listed: "grinning face", "flag: North Korea"
  std::string group, subgroup;     ///< "Smileys & Emotion", "face-smiling"
  bool skin_tone = false;          ///< holds one of U+1F3FB to U+1F3FF
};

/// The fully-qualified entries of a file in the form of emoji-test.txt, in its order. DataError names the line.
std::vector<EmojiEntry> read_emoji_list(const std::filesystem::path& file);

/// Where Debian's packages put their files.
inline constexpr const char* kEmojiListFile = "/usr/share/unicode/emoji/emoji-test.txt";
inline constexpr const char* kEmojiFontFile = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf";

/// The name in lower case (ASCII and Latin-1 letters).
std::string emoji_caption(const EmojiEntry& entry);

/// The bitmaps of a font; FreeType reads them, HarfBuzz finds the glyph of a sequence.
class EmojiFont {
 public:
  /// DataError when the file is no font with colour bitmaps. ConfigError in a build without FreeType and HarfBuzz,
  /// naming what to install.
  explicit EmojiFont(const std::filesystem::path& file);
  ~EmojiFont();
  EmojiFont(EmojiFont&&) noexcept;
  EmojiFont& operator=(EmojiFont&&) noexcept;

  /// Whether this build has FreeType and HarfBuzz.
  static bool available();

  /// The bitmap over white, RGB, in the font's size (about 136 x 128); nothing when the font has no one glyph, or no
  /// bitmap, for the sequence.
  std::optional<Image> draw(const std::vector<uint32_t>& sequence) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A picture in the middle of a white square with a margin of `margin` of its longer side on each side, resized to
/// side x side.
Image square_picture(const Image& image, int side, double margin = 0.03);

/// All emoji of a list that a font has, as pictures in memory.
class EmojiPictures {
 public:
  /// Errors of EmojiFont and read_emoji_list; DataError when the font has none of them.
  EmojiPictures(const std::filesystem::path& list_file, const std::filesystem::path& font_file, int side,
                bool skin_tones = false);

  const std::vector<EmojiEntry>& entries() const { return entries_; }
  const std::vector<std::string>& captions() const { return captions_; }
  const std::vector<Image>& pictures() const { return pictures_; }
  size_t without_bitmap() const { return without_bitmap_; }  ///< entries that were left out

  struct Nearest {
    size_t index = 0;       ///< of the picture with the least sum of squared differences in RGB
    bool is_named = false;  ///< that picture, or one exactly like it, has the caption
    bool is_known = false;  ///< some picture has the caption
  };
  /// The judge of drawn emoji; a picture of another size is resized first.
  Nearest nearest(const Image& image, const std::string& caption) const;

 private:
  std::vector<EmojiEntry> entries_;
  std::vector<std::string> captions_;
  std::vector<Image> pictures_;
  size_t without_bitmap_ = 0;
};

}  // namespace mdm
