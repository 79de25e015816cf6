// PNG files made by libpng.
#include <png.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/media/png.h"
#include "media/png_chunks.h"
#include "media/utf8.h"

namespace mdm {
namespace {

constexpr size_t kMostTextBytes = size_t{64} << 20;

// As the reader in png_read.cpp: what must outlive a longjmp.
struct PngWriter {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string out;
  char message[160] = "";

  PngWriter() = default;
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;
};

[[noreturn]] void on_write_error(png_structp png, png_const_charp text) {
  auto* writer = static_cast<PngWriter*>(png_get_error_ptr(png));
  std::snprintf(writer->message, sizeof writer->message, "%s", text);
  png_longjmp(png, 1);
}

void on_write_warning(png_structp, png_const_charp) {}

void take_png_bytes(png_structp png, png_bytep bytes, size_t count) {
  auto* writer = static_cast<PngWriter*>(png_get_io_ptr(png));
  writer->out.append(reinterpret_cast<const char*>(bytes), count);
}

void flush_png_bytes(png_structp) {}

bool write_png_image(PngWriter& writer, const Image& image, int level) {
  static constexpr int kColours[] = {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                                     PNG_COLOR_TYPE_RGB_ALPHA};
  if (setjmp(png_jmpbuf(writer.png)) != 0) return false;
  png_set_write_fn(writer.png, &writer, take_png_bytes, flush_png_bytes);
  png_set_user_limits(writer.png, 0x7FFFFFFF, 0x7FFFFFFF);
  png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height),
               8, kColours[image.channels - 1], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_set_compression_level(writer.png, level);
  png_write_info(writer.png, writer.info);
  for (int y = 0; y < image.height; ++y) png_write_row(writer.png, image.row(y));
  png_write_end(writer.png, writer.info);
  return true;
}

void check_keyword(const std::string& keyword) {
  const bool characters = std::all_of(keyword.begin(), keyword.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (keyword.empty() || keyword.size() > 79 || !characters || keyword.front() == ' ' || keyword.back() == ' ') {
    fail<Error>("\"", printable(keyword), "\" can't be the keyword of a PNG text: 1 to 79 printable ASCII characters, ",
                "no space at the ends");
  }
}

std::string text_chunks(const PngText& texts) {
  std::string chunks;
  for (const auto& [keyword, text] : texts) {
    check_keyword(keyword);
    if (text.size() > kMostTextBytes) {
      fail<Error>("the PNG text \"", keyword, "\" has ", text.size(), " bytes, more than the ", kMostTextBytes,
                  " allowed");
    }
    const std::string sound = detail::sound_utf8(text);
    std::string data = keyword;
    data.push_back('\0');
    const bool ascii = detail::is_ascii(sound);
    // iTXt: not packed, no language, no translated keyword.
    if (!ascii) data.append(4, '\0');
    data += sound;
    detail::append_png_chunk(chunks, ascii ? "tEXt" : "iTXt", data);
  }
  return chunks;
}

}  // namespace

std::string encode_png(const Image& image, const PngText& text, int level) {
  check_image(image, "encode_png");
  if (level < 0 || level > 9) fail<Error>("PNG compression level ", level, " is not one of 0 to 9");
  const std::string chunks = text_chunks(text);
  PngWriter writer;
  writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer, on_write_error, on_write_warning);
  if (writer.png != nullptr) writer.info = png_create_info_struct(writer.png);
  if (writer.info == nullptr) fail<Error>("libpng can't start: ", writer.message);
  if (!write_png_image(writer, image, level)) fail<Error>("a PNG could not be made: ", writer.message);
  // Texts stand right behind the header (signature 8, IHDR 25 bytes), where readers find them early.
  writer.out.insert(33, chunks);
  return std::move(writer.out);
}

void write_png(const std::filesystem::path& path, const Image& image, const PngText& text, int level) {
  write_file(path, encode_png(image, text, level));
}

}  // namespace mdm
