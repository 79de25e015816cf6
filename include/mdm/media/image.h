// A picture of 8-bit samples in memory, and its conversions to and from the floats of the models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mdm {

/// Pixels row by row from the top, samples of a pixel side by side: (height, width, channels).
struct Image {
  int width = 0;
  int height = 0;
  int channels = 0;  ///< 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha (not premultiplied)
  std::vector<uint8_t> pixels;

  Image() = default;
  /// All samples `fill`. Error unless the sides are at least 1 and channels is 1 to 4.
  Image(int image_width, int image_height, int image_channels, uint8_t fill = 0);

  size_t row_bytes() const { return static_cast<size_t>(width) * static_cast<size_t>(channels); }
  uint8_t* row(int y) { return pixels.data() + static_cast<size_t>(y) * row_bytes(); }
  const uint8_t* row(int y) const { return pixels.data() + static_cast<size_t>(y) * row_bytes(); }
};

/// A picture on its way to a smaller size: perhaps smaller than the one in the file already, perhaps with its colours
/// apart.
struct ReducedImage {
  Image image;
  int full_width = 0;  ///< of the picture in the file, turned upright like `image`
  int full_height = 0;
  int reduction = 1;  ///< 1, 2, 4 or 8: a pixel of `image` stands for a square with this side
  /// Empty, or Cb and Cr as JFIF has them, a plane of 1 channel each, while `image` is luma alone. A pixel of them
  /// stands for chroma_across x chroma_down pixels of `image`.
  std::vector<Image> chroma;
  int chroma_across = 1;
  int chroma_down = 1;
};

/// Throws Error when `pixels` doesn't fit the sides and channels, or these are out of range; `what` names
/// the picture in the text. Functions that take pictures call it.
void check_image(const Image& image, const char* what);

enum class AlphaRule {
  kDrop,    ///< take the colours as they are
  kOnWhite  ///< blend over white
};

/// The picture with 3 channels: gray repeated, alpha treated as told.
Image to_rgb(const Image& image, AlphaRule alpha);

enum class PixelRule {
  kRound,    ///< to the nearest, halves to even
  kTruncate  ///< cut, as the reference does (clis/generate_batch.py)
};

/// Samples of a model to a picture: x * 128 + 127, clamped to [0, 255]; NaN becomes 0.
/// `chw`: (channels, height, width), contiguous.
Image to_pixels(const float* chw, int channels, int height, int width, PixelRule rule = PixelRule::kRound);

/// A picture to what models take: (v - 127) / 128. `chw` has room for (channels, height, width).
void from_pixels(const Image& image, float* chw);

}  // namespace mdm
