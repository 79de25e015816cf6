// The one place that knows FreeType and HarfBuzz.
#include <algorithm>
#include <memory>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/demo/emoji.h"

#if MDM_HAS_FREETYPE
#include <hb.h>
// clang-format off: this header comes before all others of FreeType.
#include <ft2build.h>
// clang-format on
#include FT_FREETYPE_H
#endif

namespace mdm {

#if MDM_HAS_FREETYPE

namespace {

// A pixel of FreeType (blue, green, red, alpha; colours multiplied by alpha) over white.
void over_white(const uint8_t* bgra, uint8_t* rgb) {
  const int rest = 255 - bgra[3];
  for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>(std::min(255, bgra[2 - c] + rest));
}

}  // namespace

struct EmojiFont::Impl {
  std::shared_ptr<const FileBytes> bytes;
  std::string where;
  FT_Library library = nullptr;
  FT_Face face = nullptr;
  hb_font_t* font = nullptr;
  hb_buffer_t* buffer = nullptr;

  explicit Impl(const std::filesystem::path& file)
      : bytes(FileBytes::open(file)), where(printable(file.string(), 1000)) {
    if (FT_Init_FreeType(&library) != 0) fail<Error>("FreeType can't be started");
    const FT_Error error = FT_New_Memory_Face(library, bytes->data(), static_cast<FT_Long>(bytes->size()), 0, &face);
    if (error != 0) {
      close();
      fail<DataError>(where, ": is no font that FreeType can read (its error ", error, ")");
    }
    if (!FT_HAS_COLOR(face) || face->num_fixed_sizes < 1 || FT_Select_Size(face, 0) != 0) {
      close();
      fail<DataError>(where, ": has no colour bitmaps (a CBDT table); Debian's package fonts-noto-color-emoji has");
    }
    hb_blob_t* blob = hb_blob_create(reinterpret_cast<const char*>(bytes->data()), static_cast<unsigned>(bytes->size()),
                                     HB_MEMORY_MODE_READONLY, nullptr, nullptr);
    hb_face_t* shapes = hb_face_create(blob, 0);
    font = hb_font_create(shapes);
    hb_face_destroy(shapes);
    hb_blob_destroy(blob);
    buffer = hb_buffer_create();
  }
  ~Impl() { close(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void close() {
    if (buffer != nullptr) hb_buffer_destroy(buffer);
    if (font != nullptr) hb_font_destroy(font);
    if (face != nullptr) FT_Done_Face(face);
    if (library != nullptr) FT_Done_FreeType(library);
    buffer = nullptr;
    font = nullptr;
    face = nullptr;
    library = nullptr;
  }

  // The one glyph of a sequence; 0 when there is none.
  uint32_t glyph_of(const std::vector<uint32_t>& sequence) const {
    hb_buffer_clear_contents(buffer);
    hb_buffer_add_codepoints(buffer, sequence.data(), static_cast<int>(sequence.size()), 0,
                             static_cast<int>(sequence.size()));
    hb_buffer_set_direction(buffer, HB_DIRECTION_LTR);
    hb_buffer_set_script(buffer, HB_SCRIPT_COMMON);
    hb_shape(font, buffer, nullptr, 0);
    unsigned count = 0;
    const hb_glyph_info_t* glyphs = hb_buffer_get_glyph_infos(buffer, &count);
    return count == 1 ? glyphs[0].codepoint : 0;
  }
};

bool EmojiFont::available() { return true; }

EmojiFont::EmojiFont(const std::filesystem::path& file) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) {
    fail<DataError>(printable(file.string(), 1000),
                    ": is not there; on Debian install fonts-noto-color-emoji and unicode-data, or name other files "
                    "with --font and --names");
  }
  impl_ = std::make_unique<Impl>(file);
}

std::optional<Image> EmojiFont::draw(const std::vector<uint32_t>& sequence) const {
  const uint32_t glyph = impl_->glyph_of(sequence);
  if (glyph == 0 || FT_Load_Glyph(impl_->face, glyph, FT_LOAD_COLOR) != 0) return std::nullopt;
  const FT_Bitmap& bitmap = impl_->face->glyph->bitmap;
  if (bitmap.pixel_mode != FT_PIXEL_MODE_BGRA || bitmap.width == 0 || bitmap.rows == 0) return std::nullopt;
  Image image(static_cast<int>(bitmap.width), static_cast<int>(bitmap.rows), 3);
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* source = bitmap.buffer + static_cast<ptrdiff_t>(y) * bitmap.pitch;
    for (int x = 0; x < image.width; ++x)
      over_white(source + 4 * static_cast<ptrdiff_t>(x), image.row(y) + 3 * static_cast<ptrdiff_t>(x));
  }
  return image;
}

#else

struct EmojiFont::Impl {};

bool EmojiFont::available() { return false; }

EmojiFont::EmojiFont(const std::filesystem::path& file) {
  fail<ConfigError>("the emoji of ", printable(file.string(), 1000),
                    " can't be read: this build has no FreeType and HarfBuzz. On Debian install libfreetype-dev, "
                    "libharfbuzz-dev, fonts-noto-color-emoji and unicode-data, and run cmake again with "
                    "MDM_WITH_FREETYPE=ON");
}

std::optional<Image> EmojiFont::draw(const std::vector<uint32_t>&) const { return std::nullopt; }

#endif

EmojiFont::~EmojiFont() = default;
EmojiFont::EmojiFont(EmojiFont&&) noexcept = default;
EmojiFont& EmojiFont::operator=(EmojiFont&&) noexcept = default;

}  // namespace mdm
