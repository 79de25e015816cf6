#include "mdm/data/image_reader.h"

#include <gtest/gtest.h>

#include <map>

#include "data/test_data.h"
#include "mdm/core/error.h"
#include "mdm/media/png.h"
#include "mdm/media/resize.h"
#include "support/pictures.h"

namespace mdm {
namespace {

using test_support::largest_difference;

TrainingImage read(const std::string& bytes, const ReaderConfig& reader, const CropChoice& crop = {}) {
  return read_training_image(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), "x", reader, crop);
}

ReaderConfig config(int64_t image_size, int64_t smaller_side = -1) {
  ReaderConfig reader;
  reader.image_size = image_size;
  reader.smaller_side_size = smaller_side;
  return reader;
}

Image noisy(int width, int height, int channels) {
  Image image(width, height, channels);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(i * i * 37 + i * 11);
  return image;
}

TEST(TrainingImages, CentreOfTheResizedPicture) {
  const Image image = noisy(53, 37, 3);
  const TrainingImage result = read(encode_png(image), config(16));
  const Image whole = resize_clamped(image, 23, 16);  // lround(53 * 16 / 37)
  EXPECT_EQ(result.smaller_side, 37);
  EXPECT_EQ(result.crop_x, 3);
  EXPECT_EQ(result.crop_y, 0);
  EXPECT_EQ(largest_difference(result.image, resize_clamped(image, 23, 16, {3, 0, 16, 16})), 0);
  EXPECT_EQ(largest_difference(center_crop(whole, 16, 16), result.image), 0);
}

TEST(TrainingImages, RandomCropsReachEveryPlaceEvenly) {
  const std::string bytes = encode_png(noisy(40, 32, 3));
  ReaderConfig reader = config(24, 32);
  reader.random_crop = true;
  std::map<int, int> columns, rows;
  constexpr int kDraws = 3000;
  for (uint64_t number = 0; number < kDraws; ++number) {
    const TrainingImage result = read(bytes, reader, choose_crop(reader, 1, number));
    ++columns[result.crop_x];
    ++rows[result.crop_y];
    if (number < 3) {
      const Part part{result.crop_x, result.crop_y, 24, 24};
      EXPECT_EQ(largest_difference(result.image, resize_clamped(noisy(40, 32, 3), 40, 32, part)), 0);
    }
  }
  ASSERT_EQ(columns.size(), 17U);
  ASSERT_EQ(rows.size(), 9U);
  // Within five standard deviations.
  for (const auto& [x, count] : columns) EXPECT_NEAR(count, kDraws / 17.0, 67) << x;
  for (const auto& [y, count] : rows) EXPECT_NEAR(count, kDraws / 9.0, 91) << y;
}

TEST(TrainingImages, ChoicesAreAddressed) {
  ReaderConfig reader = config(24, 32);
  reader.random_crop = reader.random_flip = true;
  int flips = 0;
  for (uint64_t number = 0; number < 1000; ++number) {
    const CropChoice choice = choose_crop(reader, 7, number);
    flips += choice.flip ? 1 : 0;
    EXPECT_EQ(choice.x, choose_crop(reader, 7, number).x);
  }
  EXPECT_NEAR(flips, 500, 80);
  EXPECT_NE(choose_crop(reader, 7, 1).x, choose_crop(reader, 8, 1).x);
  reader.random_crop = reader.random_flip = false;
  EXPECT_TRUE(choose_crop(reader, 7, 1).centre);
  EXPECT_FALSE(choose_crop(reader, 7, 1).flip);
}

TEST(TrainingImages, Mirrors) {
  const std::string bytes = encode_png(noisy(16, 16, 3));
  CropChoice crop;
  const Image plain = read(bytes, config(15), crop).image;
  crop.flip = true;
  const Image mirrored = read(bytes, config(15), crop).image;
  for (int y = 0; y < 15; ++y) {
    for (int x = 0; x < 15; ++x) {
      for (int c = 0; c < 3; ++c) ASSERT_EQ(plain.row(y)[3 * x + c], mirrored.row(y)[3 * (14 - x) + c]);
    }
  }
}

TEST(TrainingImages, AlwaysRgb) {
  EXPECT_EQ(read(encode_png(noisy(20, 20, 1)), config(8)).image.channels, 3);
  EXPECT_EQ(read(encode_png(noisy(20, 20, 2)), config(8)).image.channels, 3);
  Image clear(20, 20, 4, 0);  // black, and wholly transparent
  EXPECT_EQ(read(encode_png(clear), config(8)).image.pixels[0], 255);
  ReaderConfig mlx = config(8);
  mlx.compat = ReaderCompat::kMlx;
  EXPECT_EQ(read(encode_png(clear), mlx).image.pixels[0], 0);
  EXPECT_EQ(read(encode_png(noisy(20, 20, 2)), mlx).image.channels, 2);
}

TEST(TrainingImages, UpscalesAndRefusesExtremeShapes) {
  EXPECT_EQ(read(encode_png(noisy(3, 5, 3)), config(64)).image.width, 64);
  EXPECT_EQ(read(encode_png(noisy(1, 1, 3)), config(64)).smaller_side, 1);
  EXPECT_THROW(read(encode_png(noisy(1, 100000, 1)), config(1024)), DataError);
  ReaderConfig reader = config(8);
  reader.max_image_pixels = 100;
  EXPECT_THROW(read(encode_png(noisy(20, 20, 3)), reader), DataError);
}

}  // namespace
}  // namespace mdm
