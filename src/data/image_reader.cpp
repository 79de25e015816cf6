#include "mdm/data/image_reader.h"

#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/media/decode.h"
#include "mdm/media/resize.h"

namespace mdm {
namespace {

constexpr long kLongestSide = 1 << 24;  // after resizing

// A place of `room` + 1, each as likely; the middle for the centre.
int offset_in(int room, bool centre, uint32_t choice) {
  if (centre) return room / 2;
  return static_cast<int>((uint64_t{choice} * (static_cast<uint64_t>(room) + 1)) >> 32);
}

void mirror(Image& image) {
  const auto channels = static_cast<size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) {
    uint8_t* left = image.row(y);
    uint8_t* right = left + image.row_bytes() - channels;
    for (; left < right; left += channels, right -= channels) std::swap_ranges(left, left + channels, right);
  }
}

}  // namespace

CropChoice choose_crop(const ReaderConfig& reader, uint64_t seed, uint64_t number) {
  CropChoice choice;
  if (reader.compat == ReaderCompat::kMlx) return choice;
  RandomAddress address;
  address.seed = seed;
  address.sample = number;
  address.stream = RandomStream::kCrop;
  uint32_t bits[3];
  random_bits(address, 0, bits, 3);
  choice.centre = !reader.random_crop;
  choice.x = bits[0];
  choice.y = bits[1];
  choice.flip = reader.random_flip && bits[2] >> 31 != 0;
  return choice;
}

TrainingImage read_training_image(const uint8_t* data, size_t size, std::string_view name, const ReaderConfig& reader,
                                  const CropChoice& crop) {
  const bool mlx = reader.compat == ReaderCompat::kMlx;
  DecodeOptions options;
  options.as_mlx = mlx;
  options.max_pixels = static_cast<uint64_t>(reader.max_image_pixels);
  const bool whole = reader.image_size < 0;
  const auto target =
      static_cast<int>(mlx || reader.smaller_side_size < 0 ? reader.image_size : reader.smaller_side_size);
  ReducedImage decoded = decode_for_side(data, size, name, whole ? 0 : target, options);
  TrainingImage result;
  result.smaller_side = std::min(decoded.full_width, decoded.full_height);
  Image& image = decoded.image;
  if (!mlx && image.channels % 2 == 0) image = to_rgb(image, AlphaRule::kOnWhite);
  if (whole) {
    result.image = std::move(image);
  } else {
    const auto kept = static_cast<int>(reader.image_size);
    const double scale = static_cast<double>(target) / result.smaller_side;
    const long sides[2] = {std::lround(scale * decoded.full_width), std::lround(scale * decoded.full_height)};
    if (std::max(sides[0], sides[1]) > kLongestSide) {
      fail<DataError>(printable(name, 1000), ": a picture of ", decoded.full_width, " x ", decoded.full_height,
                      " pixels is too narrow");
    }
    const auto width = static_cast<int>(sides[0]);
    const auto height = static_cast<int>(sides[1]);
    result.crop_x = offset_in(width - kept, crop.centre, crop.x);
    result.crop_y = offset_in(height - kept, crop.centre, crop.y);
    result.image = resize_clamped(decoded, width, height, {result.crop_x, result.crop_y, kept, kept});
  }
  if (!mlx && result.image.channels == 1) result.image = to_rgb(result.image, AlphaRule::kDrop);
  if (crop.flip) mirror(result.image);
  return result;
}

}  // namespace mdm
