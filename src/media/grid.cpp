// Many pictures on one sheet.
#include "mdm/media/grid.h"

#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"

namespace mdm {
namespace {

constexpr int64_t kMostSheetPixels = int64_t{1} << 28;

// `image` with `channels` (3 or 4, at least its own).
Image with_channels(const Image& image, int channels) {
  if (image.channels == channels) return image;
  Image rgb = to_rgb(image, AlphaRule::kDrop);
  if (channels == 3) return rgb;
  Image rgba(image.width, image.height, 4, 255);
  const auto step = static_cast<size_t>(image.channels);
  for (size_t i = 0; i < rgb.pixels.size() / 3; ++i) {
    std::copy_n(rgb.pixels.data() + 3 * i, 3, rgba.pixels.data() + 4 * i);
    if (step == 2) rgba.pixels[4 * i + 3] = image.pixels[2 * i + 1];
  }
  return rgba;
}

}  // namespace

Image make_grid(const std::vector<Image>& images, const GridOptions& options) {
  if (images.empty()) fail<Error>("make_grid: there are no pictures");
  if (options.columns < 0 || options.padding < 0) fail<Error>("make_grid: columns and padding can't be negative");
  int cell_width = 0;
  int cell_height = 0;
  int channels = images.front().channels;
  for (const Image& image : images) {
    check_image(image, "make_grid");
    cell_width = std::max(cell_width, image.width);
    cell_height = std::max(cell_height, image.height);
    if (image.channels != channels) {
      const bool alpha = image.channels % 2 == 0 || channels % 2 == 0;
      channels = alpha ? 4 : 3;
    }
  }
  const auto count = static_cast<int64_t>(images.size());
  const auto square = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(count))));
  const int64_t columns = std::min<int64_t>(options.columns > 0 ? options.columns : square, count);
  const int64_t rows = (count + columns - 1) / columns;
  const int64_t step_x = int64_t{cell_width} + options.padding;
  const int64_t step_y = int64_t{cell_height} + options.padding;
  const double pixels =
      static_cast<double>(columns * step_x + options.padding) * static_cast<double>(rows * step_y + options.padding);
  if (pixels > static_cast<double>(kMostSheetPixels)) {
    fail<Error>("make_grid: a sheet of ", count, " pictures of ", cell_width, " x ", cell_height,
                " pixels would have more than the ", kMostSheetPixels, " pixels allowed");
  }
  Image sheet(static_cast<int>(columns * step_x + options.padding), static_cast<int>(rows * step_y + options.padding),
              channels, options.background);
  for (int64_t i = 0; i < count; ++i) {
    const Image& image = images[static_cast<size_t>(i)];
    const Image converted = channels == image.channels ? Image() : with_channels(image, channels);
    const Image& source = channels == image.channels ? image : converted;
    const int64_t left = options.padding + i % columns * step_x + (cell_width - image.width) / 2;
    const int64_t top = options.padding + i / columns * step_y + (cell_height - image.height) / 2;
    for (int y = 0; y < source.height; ++y) {
      std::copy_n(source.row(y), source.row_bytes(), sheet.row(static_cast<int>(top + y)) + left * channels);
    }
  }
  return sheet;
}

}  // namespace mdm
