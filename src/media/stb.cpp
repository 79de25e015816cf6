// BMP and TGA by stb_image, and the checks that it doesn't make itself.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_BMP
#define STBI_ONLY_TGA
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS (1 << 25)
// A cut file leaves the rest of a buffer untouched there; it must not show old memory.
#define STBI_MALLOC(size) std::calloc(1, size)
#define STBI_REALLOC(pointer, size) std::realloc(pointer, size)
#define STBI_FREE(pointer) std::free(pointer)
#define STBI_ASSERT(condition) static_cast<void>(0)

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb/stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include "media/decoders.h"

namespace mdm::detail {
namespace {

// stb_image goes on with zeros where a file ends too early. It fills its own small buffer only when it needs
// a byte more, and reads rows straight into the picture: an empty answer to the first, or a short one to the
// second, means a cut file.
struct StbReader {
  const uint8_t* data;
  size_t size;
  size_t at = 0;
  bool cut = false;
  const char* buffer = nullptr;  // stb_image's own: where the first bytes go
};

int read_bytes(void* user, char* target, int wanted) {
  auto& reader = *static_cast<StbReader*>(user);
  if (wanted <= 0) return 0;
  if (reader.buffer == nullptr) reader.buffer = target;
  const size_t got = std::min(static_cast<size_t>(wanted), reader.size - reader.at);
  if (got == 0 || (target != reader.buffer && got < static_cast<size_t>(wanted))) reader.cut = true;
  std::memcpy(target, reader.data + reader.at, got);
  reader.at += got;
  return static_cast<int>(got);
}

void skip_bytes(void* user, int count) {
  auto& reader = *static_cast<StbReader*>(user);
  if (count <= 0) return;
  // The last row of a BMP may lack its padding.
  if (static_cast<size_t>(count) > reader.size - reader.at + 3) reader.cut = true;
  reader.at += std::min(static_cast<size_t>(count), reader.size - reader.at);
}

int at_end(void* user) {
  const auto& reader = *static_cast<StbReader*>(user);
  return reader.at >= reader.size ? 1 : 0;
}

constexpr stbi_io_callbacks kCallbacks = {read_bytes, skip_bytes, at_end};

struct StbDeleter {
  void operator()(uint8_t* pixels) const { stbi_image_free(pixels); }
};

// Sides that stb_image would negate or multiply before it looks at them.
void check_bmp_header(const ImageBytes& bytes, uint64_t max_pixels) {
  const uint32_t header = read_le32(bytes.data + 14);
  if (header == 12) return;  // 16-bit sides
  const auto width = static_cast<int32_t>(read_le32(bytes.data + 18));
  const auto height = static_cast<int32_t>(read_le32(bytes.data + 22));
  check_header(bytes, width, height < 0 ? -static_cast<int64_t>(height) : height, max_pixels);
}

}  // namespace

bool plausible_tga(const uint8_t* data, size_t size) {
  if (size < 18) return false;
  const int mapped = data[1];
  const int kind = data[2];
  const int map_bits = data[7];
  const int bits = data[16];
  const bool sides = read_le16(data + 12) > 0 && read_le16(data + 14) > 0;
  if (!sides || mapped > 1) return false;
  if (kind == 1 || kind == 9) {
    return mapped == 1 && bits == 8 && (map_bits == 15 || map_bits == 16 || map_bits == 24 || map_bits == 32);
  }
  if (kind == 2 || kind == 10) return mapped == 0 && (bits == 15 || bits == 16 || bits == 24 || bits == 32);
  if (kind == 3 || kind == 11) return mapped == 0 && (bits == 8 || bits == 16);
  return false;
}

Image decode_with_stb(const ImageBytes& bytes, const DecodeOptions& options) {
  const char* format = image_format_name(image_format(bytes.data, bytes.size));
  if (bytes.data[0] == 'B') check_bmp_header(bytes, options.max_pixels);
  StbReader header{bytes.data, bytes.size};
  int width = 0;
  int height = 0;
  int channels = 0;
  if (stbi_info_from_callbacks(&kCallbacks, &header, &width, &height, &channels) == 0) {
    fail_image(bytes, "broken ", format, ": its header can't be read");
  }
  check_header(bytes, width, height, options.max_pixels);
  StbReader reader{bytes.data, bytes.size};
  const std::unique_ptr<uint8_t, StbDeleter> pixels(
      stbi_load_from_callbacks(&kCallbacks, &reader, &width, &height, &channels, 0));
  if (!pixels || reader.cut) fail_image(bytes, "broken ", format, ": the file is cut or corrupt");
  check_header(bytes, width, height, options.max_pixels);
  Image image(width, height, channels);
  std::copy_n(pixels.get(), image.pixels.size(), image.pixels.begin());
  return image;
}

}  // namespace mdm::detail
