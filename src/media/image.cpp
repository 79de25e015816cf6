// Pictures in memory: checks, colour channels, floats.
#include "mdm/media/image.h"

#include "mdm/core/error.h"

namespace mdm {
namespace {

uint8_t blend_on_white(int colour, int alpha) {
  return static_cast<uint8_t>((colour * alpha + 255 * (255 - alpha) + 127) / 255);
}

}  // namespace

Image::Image(int image_width, int image_height, int image_channels, uint8_t fill)
    : width(image_width), height(image_height), channels(image_channels) {
  if (width < 1 || height < 1 || channels < 1 || channels > 4) {
    fail<Error>("a picture of ", width, " x ", height, " pixels with ", channels,
                " channels can't be made: sides must be at least 1, channels 1 to 4");
  }
  pixels.assign(row_bytes() * static_cast<size_t>(height), fill);
}

void check_image(const Image& image, const char* what) {
  const bool sides = image.width >= 1 && image.height >= 1 && image.channels >= 1 && image.channels <= 4;
  if (!sides || image.pixels.size() != image.row_bytes() * static_cast<size_t>(image.height)) {
    fail<Error>(what, ": a picture of ", image.width, " x ", image.height, " pixels with ", image.channels,
                " channels and ", image.pixels.size(), " bytes is not sound");
  }
}

Image to_rgb(const Image& image, AlphaRule alpha) {
  check_image(image, "to_rgb");
  if (image.channels == 3) return image;
  Image rgb(image.width, image.height, 3);
  const bool gray = image.channels < 3;
  const bool blended = image.channels % 2 == 0 && alpha == AlphaRule::kOnWhite;
  const size_t step = static_cast<size_t>(image.channels);
  const size_t count = image.pixels.size() / step;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* from = image.pixels.data() + i * step;
    uint8_t* to = rgb.pixels.data() + i * 3;
    for (int c = 0; c < 3; ++c) {
      const uint8_t value = from[gray ? 0 : c];
      to[c] = blended ? blend_on_white(value, from[step - 1]) : value;
    }
  }
  return rgb;
}

Image to_pixels(const float* chw, int channels, int height, int width, PixelRule rule) {
  Image image(width, height, channels);
  const size_t plane = static_cast<size_t>(width) * static_cast<size_t>(height);
  const auto step = static_cast<size_t>(channels);
  for (size_t c = 0; c < step; ++c) {
    const float* from = chw + c * plane;
    uint8_t* to = image.pixels.data() + c;
    for (size_t i = 0; i < plane; ++i) {
      float value = from[i] * 128.0f + 127.0f;
      value = value > 0.0f ? value : 0.0f;  // NaN too
      value = value < 255.0f ? value : 255.0f;
      // Above 2^23 floats are whole numbers, so the addition rounds, halves to even.
      if (rule == PixelRule::kRound) value = (value + 0x1.8p23f) - 0x1.8p23f;
      to[i * step] = static_cast<uint8_t>(value);
    }
  }
  return image;
}

void from_pixels(const Image& image, float* chw) {
  check_image(image, "from_pixels");
  const size_t plane = static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  const auto step = static_cast<size_t>(image.channels);
  for (size_t c = 0; c < step; ++c) {
    const uint8_t* from = image.pixels.data() + c;
    for (size_t i = 0; i < plane; ++i) chw[c * plane + i] = (static_cast<float>(from[i * step]) - 127.0f) / 128.0f;
  }
}

}  // namespace mdm
