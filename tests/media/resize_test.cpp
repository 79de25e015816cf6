// Resampling against Pillow's numbers and against properties; crops.
#include "mdm/media/resize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "mdm/core/error.h"
#include "media/test_images.h"

namespace mdm {
namespace {

std::vector<float> known_plane() {
  std::vector<float> plane;
  for (int y = 0; y < 9; ++y) {
    for (int x = 0; x < 11; ++x) plane.push_back(static_cast<float>((x * x * 7 + y * 31 + x * y * 3) % 256));
  }
  return plane;
}

void expect_near(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_GE(found.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1.5e-4) << i;
}

// Pillow 13.0, mode F, 11 x 9 -> 4 x 3, and the first rows of 17 x 5.
TEST(Resize, EqualsPillow) {
  const std::vector<float> plane = known_plane();
  expect_near(resize_planes(plane.data(), 1, 9, 11, 3, 4, ResizeFilter::kBilinear),
              {58.3519f, 127.5542f, 141.6125f, 150.0556f, 145.1728f, 130.7389f, 132.6426f, 128.4486f, 160.6852f,
               124.1458f, 136.3542f, 119.3519f});
  expect_near(resize_planes(plane.data(), 1, 9, 11, 5, 17, ResizeFilter::kBilinear),
              {17.7143f,  21.8151f,  29.1008f,  43.7983f,  64.2605f,  88.8403f,  121.6555f, 152.9580f, 183.0000f,
               162.9412f, 141.6218f, 118.7899f, 168.7311f, 177.6134f, 101.9076f, 149.7815f, 204.5714f, 65.8750f,
               72.1691f,  82.4706f,  100.1838f, 123.6618f, 151.2574f, 187.0882f, 154.4485f, 64.7500f,  87.6397f});
  expect_near(resize_planes(plane.data(), 1, 9, 11, 3, 4, ResizeFilter::kBicubic),
              {47.3399f, 129.5658f, 142.3032f, 149.8613f, 150.9726f, 131.2069f, 132.3530f, 132.3552f, 164.5322f,
               119.4498f, 138.1027f, 113.2460f});
  expect_near(resize_planes(plane.data(), 1, 9, 11, 5, 17, ResizeFilter::kBicubic),
              {12.8670f,  15.8185f,  23.6349f,  37.5317f,  57.2901f,  82.9125f,  114.4989f, 156.0430f, 193.4767f,
               171.8856f, 136.1435f, 108.2484f, 180.8316f, 193.5869f, 85.1625f,  147.8655f, 222.1100f, 65.7475f,
               71.0088f,  82.5802f,  99.3268f,  125.9620f, 160.1891f, 211.2518f, 164.7331f, 55.3587f,  65.4625f});
}

TEST(Resize, PlanesAreIndependentAndImagesAreTheirRounding) {
  const Image image = test::noise(23, 19, 3);
  std::vector<float> planes(image.pixels.size());
  for (size_t i = 0; i < image.pixels.size(); ++i) planes[i % 3 * 23 * 19 + i / 3] = image.pixels[i];
  for (const auto filter : {ResizeFilter::kBilinear, ResizeFilter::kBicubic}) {
    for (const auto& [width, height] : {std::pair{7, 5}, std::pair{40, 31}, std::pair{23, 8}, std::pair{1, 1}}) {
      const std::vector<float> expected = resize_planes(planes.data(), 3, 19, 23, height, width, filter);
      const Image resized = resize(image, width, height, filter);
      ASSERT_EQ(resized.pixels.size(), expected.size());
      const size_t plane = expected.size() / 3;
      for (size_t i = 0; i < expected.size(); ++i) {
        const float value = std::min(std::max(expected[i % 3 * plane + i / 3], 0.0f), 255.0f);
        ASSERT_LE(std::abs(static_cast<float>(resized.pixels[i]) - value), 0.501f) << i;
      }
    }
  }
}

TEST(Resize, AFlatPictureStaysFlat) {
  for (const int side : {1, 2, 3, 17, 64, 200}) {
    for (const auto filter : {ResizeFilter::kBilinear, ResizeFilter::kBicubic}) {
      const Image resized = resize(Image(33, 21, 4, 173), side, 201 - side, filter);
      for (const uint8_t value : resized.pixels) ASSERT_EQ(value, 173);
    }
  }
}

TEST(Resize, ShrinkingIsAntialiased) {
  Image stripes(256, 256, 1);
  for (size_t i = 0; i < stripes.pixels.size(); ++i) stripes.pixels[i] = i % 2 == 0 ? 0 : 255;
  for (const auto filter : {ResizeFilter::kBilinear, ResizeFilter::kBicubic}) {
    const Image resized = resize(stripes, 31, 31, filter);
    for (int y = 1; y < 30; ++y) {
      for (int x = 1; x < 30; ++x) ASSERT_NEAR(resized.row(y)[x], 127.5, 6) << x;
    }
  }
}

TEST(Resize, CommutesWithMirroring) {
  const Image image = test::noise(20, 14, 3);
  const Image mirrored = resize(apply_orientation(image, 3), 9, 25);
  EXPECT_LE(test::largest_difference(apply_orientation(mirrored, 3), resize(image, 9, 25)), 1);
}

TEST(Resize, SameSizeIsACopy) {
  const Image image = test::noise(20, 14, 3);
  EXPECT_EQ(resize(image, 20, 14).pixels, image.pixels);
}

TEST(Resize, WrongSidesAreErrors) {
  const Image image = test::noise(20, 14, 3);
  EXPECT_THROW(resize(image, 0, 5), Error);
  EXPECT_THROW(resize(image, 5, -1), Error);
  EXPECT_THROW(resize(Image(), 5, 5), Error);
  EXPECT_THROW(center_crop(image, 21, 14), Error);
  EXPECT_THROW(center_crop(image, 0, 14), Error);
}

TEST(Crop, TakesTheMiddle) {
  Image image(5, 4, 2);
  std::iota(image.pixels.begin(), image.pixels.end(), uint8_t{0});
  EXPECT_EQ(center_crop(image, 3, 2).pixels, (std::vector<uint8_t>{12, 13, 14, 15, 16, 17, 22, 23, 24, 25, 26, 27}));
  EXPECT_EQ(center_crop(image, 2, 1).pixels, (std::vector<uint8_t>{12, 13, 14, 15}));
  EXPECT_EQ(center_crop(image, 5, 4).pixels, image.pixels);
}

TEST(Crop, ResizeAndCropKeepsTheShape) {
  // A disc stays a disc, whatever is cut off.
  Image image(120, 60, 1);
  for (int y = 0; y < 60; ++y) {
    for (int x = 0; x < 120; ++x) image.row(y)[x] = std::hypot(x - 59.5, y - 29.5) < 20 ? 255 : 0;
  }
  const Image square = resize_and_crop(image, 30, 30);
  EXPECT_EQ(square.width, 30);
  EXPECT_EQ(square.height, 30);
  int across = 0;
  int down = 0;
  for (int i = 0; i < 30; ++i) {
    across += square.row(15)[i] > 127;
    down += square.row(i)[15] > 127;
  }
  EXPECT_EQ(across, 20);
  EXPECT_EQ(down, 20);
  const Image wide = resize_and_crop(image, 64, 16);
  EXPECT_EQ(wide.width, 64);
  EXPECT_EQ(wide.height, 16);
}

TEST(Crop, LongStripsAreNotBlownUp) {
  const auto cost = test::cost_of([] {
    const Image square = resize_and_crop(Image(1000000, 1, 3, 9), 64, 64);
    EXPECT_EQ(square.pixels, Image(64, 64, 3, 9).pixels);
  });
  EXPECT_LT(cost.seconds, test::patience());
  EXPECT_LT(cost.peak_mib, 32);
}

}  // namespace
}  // namespace mdm
