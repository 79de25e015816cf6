// Sizes of pictures from the beginnings of their files.
#include <cstdlib>
#include <cstring>

#include "media/decoders.h"

namespace mdm {
namespace {

using detail::ImageBytes;
using detail::read_be16;
using detail::read_be32;
using detail::read_le16;
using detail::read_le32;

// Walks the segments up to the frame's; EXIF data lie before it.
std::optional<ImageSize> jpeg_size(const uint8_t* data, size_t size) {
  int orientation = 1;
  size_t at = 2;
  while (size - at >= 4) {
    if (data[at] != 0xFF) return std::nullopt;
    const uint8_t marker = data[at + 1];
    if (marker == 0xFF || marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {  // filling, or without a length
      at += marker == 0xFF ? 1 : 2;
      continue;
    }
    const size_t length = read_be16(data + at + 2);
    if (length < 2 || marker == 0xD9 || marker == 0xDA) return std::nullopt;
    const uint8_t* body = data + at + 4;
    const size_t there = std::min(size - at - 4, length - 2);
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame) {
      if (there < 5) return std::nullopt;
      ImageSize found{read_be16(body + 3), read_be16(body + 1)};
      if (orientation > 4) std::swap(found.width, found.height);
      return found;
    }
    if (there < length - 2) return std::nullopt;
    if (marker == 0xE1 && there >= 6 && std::memcmp(body, "Exif\0\0", 6) == 0) {
      orientation = exif_orientation(body + 6, there - 6);
    }
    at += 2 + length;
  }
  return std::nullopt;
}

std::optional<ImageSize> png_size(const uint8_t* data, size_t size) {
  if (size < 24 || std::memcmp(data + 12, "IHDR", 4) != 0) return std::nullopt;
  return ImageSize{read_be32(data + 16), read_be32(data + 20)};
}

std::optional<ImageSize> bmp_size(const uint8_t* data, size_t size) {
  constexpr uint32_t kOldHeader = 12;
  if (size < 26) return std::nullopt;
  if (read_le32(data + 14) == kOldHeader) return ImageSize{read_le16(data + 18), read_le16(data + 20)};
  // The first row is the upper one where the height is negative.
  const int64_t height = static_cast<int32_t>(read_le32(data + 22));
  return ImageSize{static_cast<int32_t>(read_le32(data + 18)), std::abs(height)};
}

std::optional<ImageSize> any_size(const uint8_t* data, size_t size) {
  switch (image_format(data, size)) {
    case ImageFormat::kJpeg: return jpeg_size(data, size);
    case ImageFormat::kPng: return png_size(data, size);
    case ImageFormat::kWebp: return detail::webp_size({data, size, {}});
    case ImageFormat::kPnm: return detail::pnm_size({data, size, {}});
    case ImageFormat::kBmp: return bmp_size(data, size);
    case ImageFormat::kTga: return ImageSize{read_le16(data + 12), read_le16(data + 14)};
    case ImageFormat::kUnknown: break;
  }
  return std::nullopt;
}

}  // namespace

std::optional<ImageSize> image_size(const uint8_t* data, size_t size) {
  const auto found = any_size(data, size);
  const bool possible =
      found && found->width > 0 && found->height > 0 && found->width <= INT32_MAX && found->height <= INT32_MAX;
  return possible ? found : std::nullopt;
}

}  // namespace mdm
