// The resizing of training images: against its rule in double precision, and properties. (Against the reference's
// own results: the golden cases of kind reader.)
#include <gtest/gtest.h>

#include <cmath>

#include "mdm/core/error.h"
#include "mdm/media/decode.h"
#include "mdm/media/resize.h"
#include "media/test_images.h"

namespace mdm {
namespace {

// One sample by the rule alone: triangle of radius max(1, s), weights of pixels outside go to the edge.
double sample_by_rule(const Image& image, int width, int height, int x, int y, int channel) {
  const auto weights = [](int size, int outputs, int o) {
    const double step = static_cast<double>(size) / outputs, reach = std::max(1.0, step), centre = (o + 0.5) * step;
    std::vector<double> out(static_cast<size_t>(size), 0);
    double sum = 0;
    for (int i = -3 * size - 5; i < 4 * size + 5; ++i) {
      const double weight = std::max(0.0, 1 - std::abs(i + 0.5 - centre) / reach);
      out[static_cast<size_t>(std::min(std::max(i, 0), size - 1))] += weight;
      sum += weight;
    }
    for (double& weight : out) weight /= sum;
    return out;
  };
  const auto across = weights(image.width, width, x), down = weights(image.height, height, y);
  double sum = 0;
  for (int v = 0; v < image.height; ++v) {
    for (int u = 0; u < image.width; ++u) {
      sum += across[static_cast<size_t>(u)] * down[static_cast<size_t>(v)] * image.row(v)[u * image.channels + channel];
    }
  }
  return sum;
}

TEST(ResizeClamped, EqualsItsRule) {
  for (const auto& [w, h, new_w, new_h] : {std::tuple{23, 17, 8, 6},
                                           {23, 17, 40, 31},
                                           {16, 16, 16, 16},
                                           {40, 10, 9, 25},
                                           {1, 1, 5, 3},
                                           {7, 300, 3, 5},
                                           {40, 40, 32, 32}}) {
    for (int channels = 1; channels <= 4; ++channels) {
      const Image image = test::noise(w, h, channels);
      const Image resized = resize_clamped(image, new_w, new_h);
      ASSERT_EQ(resized.width, new_w);
      ASSERT_EQ(resized.channels, channels);
      for (int y = 0; y < new_h; y += 2) {
        for (int x = 0; x < new_w; x += 3) {
          for (int c = 0; c < channels; ++c) {
            const double expected = sample_by_rule(image, new_w, new_h, x, y, c);
            ASSERT_NEAR(resized.row(y)[x * channels + c], expected, 0.502) << w << "x" << h << " at " << x << "," << y;
          }
        }
      }
    }
  }
}

TEST(ResizeClamped, TheSameSizeChangesNothing) {
  const Image image = test::noise(37, 21, 3);
  EXPECT_EQ(resize_clamped(image, 37, 21).pixels, image.pixels);
}

TEST(ResizeClamped, OneColourStaysIt) {
  for (const uint8_t value : {0, 1, 127, 254, 255}) {
    const Image image(31, 47, 3, value);
    for (const auto& [w, h] : {std::pair{5, 9}, {64, 100}, {31, 9}}) {
      for (const uint8_t sample : resize_clamped(image, w, h).pixels) ASSERT_EQ(sample, value);
    }
  }
}

TEST(ResizeClamped, PartsAreThoseOfTheWhole) {
  const Image image = test::noise(61, 43, 3);
  const Image whole = resize_clamped(image, 40, 28);
  for (const Part part : {Part{0, 0, 40, 28}, Part{3, 5, 20, 20}, Part{39, 27, 1, 1}, Part{0, 10, 40, 3}}) {
    const Image piece = resize_clamped(image, 40, 28, part);
    ASSERT_EQ(piece.width, part.width);
    ASSERT_EQ(piece.height, part.height);
    for (int y = 0; y < part.height; ++y) {
      for (size_t i = 0; i < piece.row_bytes(); ++i) {
        ASSERT_EQ(piece.row(y)[i], whole.row(part.y + y)[static_cast<size_t>(part.x) * 3 + i]);
      }
    }
  }
  EXPECT_THROW(resize_clamped(image, 40, 28, {21, 0, 20, 20}), Error);
  EXPECT_THROW(resize_clamped(image, 40, 28, {-1, 0, 20, 20}), Error);
  EXPECT_THROW(resize_clamped(image, 0, 28), Error);
}

// A picture with as much structure in each octave of size, as photographs have.
Image photograph(int width, int height, uint64_t seed) {
  std::vector<float> sum(static_cast<size_t>(width) * static_cast<size_t>(height) * 3, 128);
  for (int octave = 1; octave <= 7; ++octave) {
    const Image coarse =
        test::noise((width >> octave) + 2, (height >> octave) + 2, 3, seed * 8 + static_cast<uint64_t>(octave));
    const Image fine = resize(coarse, width, height);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += 0.3f * (static_cast<float>(fine.pixels[i]) - 128);
  }
  Image image(width, height, 3);
  for (size_t i = 0; i < sum.size(); ++i)
    image.pixels[i] = static_cast<uint8_t>(std::min(std::max(sum[i], 0.0f), 255.0f));
  return image;
}

ReducedImage reduced(const std::string& jpeg, int side) {
  return decode_for_side(reinterpret_cast<const uint8_t*>(jpeg.data()), jpeg.size(), "x", side);
}

constexpr test::Subsampling kSubsamplings[] = {test::Subsampling::k444, test::Subsampling::k422,
                                               test::Subsampling::k420, test::Subsampling::k440,
                                               test::Subsampling::k411};

// What decode.h states about decoding at a reduced size and with the colours apart.
TEST(DecodeForSide, StaysNearTheWholeDecode) {
  double mean = 0;
  int largest = 0, cases = 0;
  for (const auto& [w, h, side, reduction] : {std::tuple{531, 397, 64, 2},
                                              {1025, 769, 64, 4},
                                              {803, 1203, 40, 8},
                                              {640, 480, 96, 2},
                                              {515, 700, 100, 2},
                                              {531, 397, 256, 1},
                                              {401, 303, 300, 1}}) {
    const Image source = photograph(w, h, static_cast<uint64_t>(w));
    for (const auto subsampling : kSubsamplings) {
      const std::string jpeg = test::jpeg_of(source, subsampling, 90);
      const ReducedImage small = reduced(jpeg, side);
      const bool exact_only = subsampling == test::Subsampling::k411;
      const bool apart = reduction == 1 && !exact_only;
      ASSERT_EQ(small.reduction, exact_only ? 1 : reduction);
      ASSERT_EQ(small.chroma.size(), apart ? 2U : 0U);
      ASSERT_EQ(small.full_width, w);
      ASSERT_EQ(small.full_height, h);
      const int new_w = static_cast<int>(std::lround(static_cast<double>(side) / std::min(w, h) * w));
      const int new_h = static_cast<int>(std::lround(static_cast<double>(side) / std::min(w, h) * h));
      const Image ours = resize_clamped(small, new_w, new_h);
      const Image exact = resize_clamped(test::decode(jpeg), new_w, new_h);
      mean += test::mean_difference(ours, exact);
      const int difference = test::largest_difference(ours, exact);
      // Colours that are interpolated one way only differ more.
      const bool both_ways = subsampling == test::Subsampling::k444 || subsampling == test::Subsampling::k420;
      EXPECT_LE(difference, both_ways ? 10 : 12) << w << " x " << h << " to " << side;
      largest = std::max(largest, difference);
      ++cases;
    }
  }
  EXPECT_LE(mean / cases, 0.8);
  EXPECT_GT(largest, 0);
  RecordProperty("largest", largest);
  RecordProperty("mean", std::to_string(mean / cases));
}

// Of colours that don't vary, being apart changes nothing but the rounding.
TEST(DecodeForSide, ColoursAreThoseOfTheWholeDecode) {
  for (const auto& [red, green, blue] :
       {std::tuple{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {255, 255, 255}, {9, 80, 200}}) {
    Image plain(61, 45, 3);
    for (size_t i = 0; i < plain.pixels.size(); i += 3) {
      plain.pixels[i] = static_cast<uint8_t>(red);
      plain.pixels[i + 1] = static_cast<uint8_t>(green);
      plain.pixels[i + 2] = static_cast<uint8_t>(blue);
    }
    for (const auto subsampling : kSubsamplings) {
      const std::string jpeg = test::jpeg_of(plain, subsampling, 100);
      const Image ours = resize_clamped(reduced(jpeg, 30), 41, 30);
      EXPECT_LE(test::largest_difference(ours, resize_clamped(test::decode(jpeg), 41, 30)), 1) << red << "," << green;
    }
  }
}

TEST(DecodeForSide, TurnsAsTheWholeDecode) {
  const Image source = photograph(333, 221, 5);
  for (const auto subsampling : kSubsamplings) {
    for (int orientation = 1; orientation <= 8; ++orientation) {
      const std::string jpeg = test::with_orientation(test::jpeg_of(source, subsampling, 90), orientation, true);
      const int w = orientation > 4 ? 100 : 150, h = orientation > 4 ? 150 : 100;
      const Image ours = resize_clamped(reduced(jpeg, 100), w, h);
      const Image exact = resize_clamped(test::decode(jpeg), w, h);
      EXPECT_LE(test::mean_difference(ours, exact), 0.8) << orientation;
      EXPECT_LE(test::largest_difference(ours, exact), 10) << orientation;
    }
  }
}

TEST(DecodeForSide, KeepsColoursTogetherWhereNothingShrinks) {
  const std::string jpeg = test::jpeg_of(test::gradient(60, 40, 3), test::Subsampling::k420);
  EXPECT_TRUE(reduced(jpeg, 40).chroma.empty());
  EXPECT_TRUE(reduced(jpeg, 100).chroma.empty());
  EXPECT_FALSE(reduced(jpeg, 39).chroma.empty());
  EXPECT_TRUE(reduced(test::jpeg_of(test::gradient(60, 40, 1)), 20).chroma.empty());
  EXPECT_TRUE(reduced(test::cmyk_jpeg_of(test::noise(60, 40, 4), true), 20).chroma.empty());
}

TEST(DecodeForSide, ReducesOnlyWhatIsMuchTooLarge) {
  const std::string jpeg = test::jpeg_of(test::gradient(200, 131, 3));
  EXPECT_EQ(reduced(jpeg, 0).reduction, 1);
  EXPECT_EQ(reduced(jpeg, 27).reduction, 1);
  EXPECT_EQ(reduced(jpeg, 26).reduction, 2);
  EXPECT_EQ(reduced(jpeg, 13).reduction, 4);
  EXPECT_EQ(reduced(jpeg, 1).reduction, 8);
  EXPECT_EQ(reduced(jpeg, 13).image.width, 50);
  EXPECT_EQ(reduced(jpeg, 13).image.height, 33);  // 131 / 4, rounded up
  DecodeOptions mlx;
  mlx.as_mlx = true;
  EXPECT_EQ(decode_for_side(reinterpret_cast<const uint8_t*>(jpeg.data()), jpeg.size(), "x", 1, mlx).reduction, 1);
  // Turned pictures are measured upright, and CMYK and gray are reduced too.
  const ReducedImage turned = reduced(test::with_orientation(jpeg, 6, true), 13);
  EXPECT_EQ(turned.full_width, 131);
  EXPECT_EQ(turned.image.width, 33);
  EXPECT_EQ(reduced(test::cmyk_jpeg_of(test::noise(100, 100, 4), true), 4).image.width, 13);
  EXPECT_EQ(reduced(test::jpeg_of(test::gradient(100, 100, 1)), 4).image.channels, 1);
}

}  // namespace
}  // namespace mdm
