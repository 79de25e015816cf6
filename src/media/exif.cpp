// EXIF: the orientation, and turning a picture by it.
#include <algorithm>

#include "mdm/core/error.h"
#include "mdm/media/decode.h"
#include "media/decoders.h"

namespace mdm {
namespace {

constexpr uint16_t kOrientationTag = 0x0112;
constexpr uint16_t kShort = 3;

struct Tiff {
  const uint8_t* data;
  size_t size;
  bool big;
  uint16_t read16(size_t at) const { return big ? detail::read_be16(data + at) : detail::read_le16(data + at); }
  uint32_t read32(size_t at) const { return big ? detail::read_be32(data + at) : detail::read_le32(data + at); }
};

}  // namespace

int exif_orientation(const uint8_t* data, size_t size) {
  if (size < 8 || data[0] != data[1] || (data[0] != 'M' && data[0] != 'I')) return 1;
  const Tiff tiff{data, size, data[0] == 'M'};
  if (tiff.read16(2) != 42) return 1;
  const size_t directory = tiff.read32(4);
  if (directory > size - 2) return 1;
  const size_t entries = std::min<size_t>(tiff.read16(directory), (size - directory - 2) / 12);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + 12 * i;
    if (tiff.read16(entry) != kOrientationTag) continue;
    const int value = tiff.read16(entry + 8);
    const bool sound = tiff.read16(entry + 2) == kShort && tiff.read32(entry + 4) == 1 && value >= 1 && value <= 8;
    return sound ? value : 1;
  }
  return 1;
}

Image apply_orientation(Image image, int orientation) {
  check_image(image, "apply_orientation");
  if (orientation < 1 || orientation > 8) fail<Error>("EXIF orientation ", orientation, " is not one of 1 to 8");
  if (orientation == 1) return image;
  // Stored (x, y) of upright (X, Y): first the axes may change places, then each may run backwards.
  const bool transposed = orientation >= 5;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image upright(transposed ? image.height : image.width, transposed ? image.width : image.height, image.channels);
  const auto step = static_cast<size_t>(image.channels);
  for (int y = 0; y < upright.height; ++y) {
    uint8_t* to = upright.row(y);
    for (int x = 0; x < upright.width; ++x, to += step) {
      const int column = transposed ? y : x;
      const int line = transposed ? x : y;
      const uint8_t* from = image.row(flip_y ? image.height - 1 - line : line) +
                            step * static_cast<size_t>(flip_x ? image.width - 1 - column : column);
      std::copy_n(from, step, to);
    }
  }
  return upright;
}

}  // namespace mdm
