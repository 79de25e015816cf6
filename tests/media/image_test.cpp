// Channels, floats, sheets of pictures.
#include "mdm/media/image.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "mdm/core/error.h"
#include "mdm/media/grid.h"
#include "media/test_images.h"

namespace mdm {
namespace {

using Pixels = std::vector<uint8_t>;

Image image_of(int width, int height, int channels, Pixels pixels) {
  Image image(width, height, channels);
  image.pixels = std::move(pixels);
  return image;
}

TEST(Image, SidesAndChannelsAreChecked) {
  EXPECT_THROW(Image(0, 1, 1), Error);
  EXPECT_THROW(Image(1, -1, 1), Error);
  EXPECT_THROW(Image(1, 1, 0), Error);
  EXPECT_THROW(Image(1, 1, 5), Error);
  EXPECT_EQ(Image(3, 2, 4, 7).pixels, Pixels(24, 7));
  Image broken(3, 2, 1);
  broken.height = 3;
  EXPECT_THROW(check_image(broken, "x"), Error);
}

TEST(Image, ToRgb) {
  EXPECT_EQ(to_rgb(image_of(2, 1, 1, {5, 9}), AlphaRule::kDrop).pixels, (Pixels{5, 5, 5, 9, 9, 9}));
  const Image gray_alpha = image_of(3, 1, 2, {100, 0, 100, 255, 0, 51});
  EXPECT_EQ(to_rgb(gray_alpha, AlphaRule::kDrop).pixels, (Pixels{100, 100, 100, 100, 100, 100, 0, 0, 0}));
  EXPECT_EQ(to_rgb(gray_alpha, AlphaRule::kOnWhite).pixels, (Pixels{255, 255, 255, 100, 100, 100, 204, 204, 204}));
  const Image rgba = image_of(2, 1, 4, {1, 2, 3, 255, 10, 20, 30, 0});
  EXPECT_EQ(to_rgb(rgba, AlphaRule::kDrop).pixels, (Pixels{1, 2, 3, 10, 20, 30}));
  EXPECT_EQ(to_rgb(rgba, AlphaRule::kOnWhite).pixels, (Pixels{1, 2, 3, 255, 255, 255}));
}

TEST(Pixels, RoundAndTruncate) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {-1, 1, 0, 0.5f / 128, 0.9f / 128, 1.5f / 128, -2, 5, nan, inf, -inf, 127.6f / 128};
  const int count = static_cast<int>(values.size());
  EXPECT_EQ(to_pixels(values.data(), 1, 1, count).pixels, (Pixels{0, 255, 127, 128, 128, 128, 0, 255, 0, 255, 0, 255}));
  EXPECT_EQ(to_pixels(values.data(), 1, 1, count, PixelRule::kTruncate).pixels,
            (Pixels{0, 255, 127, 127, 127, 128, 0, 255, 0, 255, 0, 254}));
}

TEST(Pixels, PlanesAreInterleaved) {
  const auto at = [](int value) { return static_cast<float>(value - 127) / 128.0f; };
  const std::vector<float> chw = {at(1), at(2), at(3), at(4),  at(5),  at(6),
                                  at(7), at(8), at(9), at(10), at(11), at(12)};
  const Image image = to_pixels(chw.data(), 3, 2, 2);
  EXPECT_EQ(image.pixels, (Pixels{1, 5, 9, 2, 6, 10, 3, 7, 11, 4, 8, 12}));
  std::vector<float> back(12);
  from_pixels(image, back.data());
  EXPECT_EQ(back, chw);
}

TEST(Pixels, EveryValueComesBack) {
  Image image(256, 1, 1);
  for (int i = 0; i < 256; ++i) image.pixels[static_cast<size_t>(i)] = static_cast<uint8_t>(i);
  std::vector<float> values(256);
  from_pixels(image, values.data());
  EXPECT_EQ(values[0], -127.0f / 128);
  EXPECT_EQ(values[255], 1.0f);
  EXPECT_EQ(to_pixels(values.data(), 1, 1, 256).pixels, image.pixels);
  EXPECT_EQ(to_pixels(values.data(), 1, 1, 256, PixelRule::kTruncate).pixels, image.pixels);
}

TEST(Grid, PlacesPicturesRowByRow) {
  const std::vector<Image> images = {Image(2, 2, 1, 1), Image(2, 2, 1, 2), Image(2, 2, 1, 3)};
  GridOptions options;
  options.padding = 1;
  options.background = 9;
  const Image sheet = make_grid(images, options);
  EXPECT_EQ(sheet.width, 7);
  EXPECT_EQ(sheet.height, 7);
  EXPECT_EQ(sheet.pixels, (Pixels{9, 9, 9, 9, 9, 9, 9,  //
                                  9, 1, 1, 9, 2, 2, 9,  //
                                  9, 1, 1, 9, 2, 2, 9,  //
                                  9, 9, 9, 9, 9, 9, 9,  //
                                  9, 3, 3, 9, 9, 9, 9,  //
                                  9, 3, 3, 9, 9, 9, 9,  //
                                  9, 9, 9, 9, 9, 9, 9}));
  options.columns = 3;
  options.padding = 0;
  EXPECT_EQ(make_grid(images, options).pixels, (Pixels{1, 1, 2, 2, 3, 3, 1, 1, 2, 2, 3, 3}));
  options.columns = 50;
  EXPECT_EQ(make_grid(images, options).width, 6);
}

TEST(Grid, MixesSizesAndChannels) {
  GridOptions options;
  options.padding = 0;
  const Image sheet = make_grid({Image(3, 3, 3, 50), Image(1, 1, 2, 7)}, options);
  EXPECT_EQ(sheet.width, 6);
  EXPECT_EQ(sheet.height, 3);
  EXPECT_EQ(sheet.channels, 4);
  const uint8_t* pixel = sheet.row(1) + 4 * 4;
  EXPECT_EQ(Pixels(pixel, pixel + 4), (Pixels{7, 7, 7, 7}));
  EXPECT_EQ(Pixels(sheet.row(0), sheet.row(0) + 4), (Pixels{50, 50, 50, 255}));
  EXPECT_EQ(make_grid({Image(1, 1, 1, 5), Image(1, 1, 3, 7)}, options).channels, 3);
}

TEST(Grid, WrongUseIsAnError) {
  EXPECT_THROW(make_grid({}), Error);
  EXPECT_THROW(make_grid({Image()}), Error);
  GridOptions options;
  options.padding = -1;
  EXPECT_THROW(make_grid({Image(1, 1, 1)}, options), Error);
  options.padding = 1 << 30;
  EXPECT_THROW(make_grid({Image(1, 1, 1)}, options), Error);
}

}  // namespace
}  // namespace mdm
