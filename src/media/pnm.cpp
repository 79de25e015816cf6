// PNM, the binary kinds: P5 (gray) and P6 (RGB), 8 or 16 bits.
#include <algorithm>

#include "media/decoders.h"

namespace mdm::detail {
namespace {

struct PnmHeader {
  const ImageBytes& bytes;
  size_t at = 2;

  bool space() const {
    const uint8_t c = bytes.data[at];
    return c == ' ' || (c >= '\t' && c <= '\r');
  }

  // The next number; white space and comments (# to the end of the line) stand before it.
  int64_t number(const char* what, int64_t largest) {
    while (at < bytes.size && (space() || bytes.data[at] == '#')) {
      if (bytes.data[at++] != '#') continue;
      while (at < bytes.size && bytes.data[at] != '\n' && bytes.data[at] != '\r') ++at;
    }
    const size_t start = at;
    int64_t value = 0;
    for (; at < bytes.size && bytes.data[at] >= '0' && bytes.data[at] <= '9'; ++at) {
      value = value * 10 + (bytes.data[at] - '0');
      if (value > largest) fail_image(bytes, "broken PNM: ", what, " is above ", largest);
    }
    if (at == start || value == 0) fail_image(bytes, "broken PNM: ", what, " is missing or 0");
    return value;
  }
};

}  // namespace

Image decode_pnm(const ImageBytes& bytes, const DecodeOptions& options) {
  PnmHeader header{bytes};
  const int64_t width = header.number("the width", INT32_MAX);
  const int64_t height = header.number("the height", INT32_MAX);
  const auto largest = static_cast<uint32_t>(header.number("the largest value", 65535));
  if (header.at >= bytes.size || !header.space()) fail_image(bytes, "broken PNM: the header has no end");
  ++header.at;
  check_header(bytes, width, height, options.max_pixels);
  const int channels = bytes.data[1] == '6' ? 3 : 1;
  const size_t sample_bytes = largest > 255 ? 2 : 1;
  const size_t samples = static_cast<size_t>(width) * static_cast<size_t>(height) * static_cast<size_t>(channels);
  if ((bytes.size - header.at) / sample_bytes < samples) {
    fail_image(bytes, "broken PNM: the file is cut, it has ", bytes.size - header.at, " of ", samples * sample_bytes,
               " bytes of pixels");
  }
  Image image(static_cast<int>(width), static_cast<int>(height), channels);
  const uint8_t* from = bytes.data + header.at;
  for (size_t i = 0; i < samples; ++i, from += sample_bytes) {
    const uint32_t value = std::min<uint32_t>(sample_bytes == 2 ? read_be16(from) : *from, largest);
    image.pixels[i] = static_cast<uint8_t>((value * 255 + largest / 2) / largest);
  }
  return image;
}

std::optional<ImageSize> pnm_size(const ImageBytes& bytes) {
  try {
    PnmHeader header{bytes};
    const int64_t width = header.number("the width", INT32_MAX);
    const int64_t height = header.number("the height", INT32_MAX);
    if (header.at >= bytes.size) return std::nullopt;  // more digits may follow
    return ImageSize{width, height};
  } catch (const DataError&) {
    return std::nullopt;
  }
}

}  // namespace mdm::detail
