// PNG by libpng.
#include <png.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "media/decoders.h"

namespace mdm::detail {
namespace {

// What libpng needs while it reads. Errors leave it by longjmp, so functions that set the jump hold no
// objects with destructors; these live here.
struct PngReader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  const uint8_t* data;
  size_t size;
  size_t at = 0;
  char message[160] = "";
  png_uint_32 width = 0;
  png_uint_32 height = 0;

  explicit PngReader(const ImageBytes& bytes) : data(bytes.data), size(bytes.size) {}
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
};

[[noreturn]] void on_read_error(png_structp png, png_const_charp text) {
  auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
  std::snprintf(reader->message, sizeof reader->message, "%s", text);
  png_longjmp(png, 1);
}

void on_read_warning(png_structp, png_const_charp) {}

void read_png_bytes(png_structp png, png_bytep target, size_t count) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (count > reader->size - reader->at) png_error(png, "the file is cut");
  std::memcpy(target, reader->data + reader->at, count);
  reader->at += count;
}

// Everything before the pixels. Of the chunks that only describe, none is looked at but tRNS: profiles and
// texts are where small files hide large ones.
bool read_png_header(PngReader& reader, bool ignore_checksums) {
  static const png_byte kIgnored[] =
      "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0sCAL\0sPLT\0sRGB\0sTER\0tEXt\0tIME\0zTXt";
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  png_set_read_fn(reader.png, &reader, read_png_bytes);
  if (ignore_checksums) {
    png_set_crc_action(reader.png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_set_option(reader.png, PNG_IGNORE_ADLER32, PNG_OPTION_ON);
  }
  png_set_user_limits(reader.png, 0x7FFFFFFF, 0x7FFFFFFF);  // ours come after the header
  png_set_chunk_malloc_max(reader.png, 1 << 20);
  png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_NEVER, kIgnored, sizeof kIgnored / 5);
  png_read_info(reader.png, reader.info);
  reader.width = png_get_image_width(reader.png, reader.info);
  reader.height = png_get_image_height(reader.png, reader.info);
  return true;
}

bool set_png_transforms(PngReader& reader, int* passes, int* channels) {
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  const int colour = png_get_color_type(reader.png, reader.info);
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(reader.png);
  if (colour == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(reader.png);
  if (png_get_valid(reader.png, reader.info, PNG_INFO_tRNS) != 0) png_set_tRNS_to_alpha(reader.png);
  png_set_strip_16(reader.png);
  *passes = png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  *channels = png_get_channels(reader.png, reader.info);
  return true;
}

bool read_png_rows(PngReader& reader, Image& image, int passes) {
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  for (int pass = 0; pass < passes; ++pass) {
    for (int y = 0; y < image.height; ++y) png_read_row(reader.png, image.row(y), nullptr);
  }
  png_read_end(reader.png, nullptr);
  return true;
}

}  // namespace

Image decode_png(const ImageBytes& bytes, const DecodeOptions& options) {
  PngReader reader(bytes);
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, on_read_error, on_read_warning);
  if (reader.png != nullptr) reader.info = png_create_info_struct(reader.png);
  if (reader.info == nullptr) fail<Error>("libpng can't start: ", reader.message);
  if (!read_png_header(reader, options.as_mlx)) fail_image(bytes, "broken PNG: ", reader.message);
  check_header(bytes, reader.width, reader.height, options.max_pixels);
  int passes = 0;
  int channels = 0;
  if (!set_png_transforms(reader, &passes, &channels)) fail_image(bytes, "broken PNG: ", reader.message);
  Image image(static_cast<int>(reader.width), static_cast<int>(reader.height), channels);
  if (png_get_rowbytes(reader.png, reader.info) != image.row_bytes()) {
    fail_image(bytes, "broken PNG: rows of ", png_get_rowbytes(reader.png, reader.info), " bytes");
  }
  if (!read_png_rows(reader, image, passes)) fail_image(bytes, "broken PNG: ", reader.message);
  return image;
}

}  // namespace mdm::detail
