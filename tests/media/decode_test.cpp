// Decoding of sound files of every kind.
#include "mdm/media/decode.h"

#include <gtest/gtest.h>
#include <png.h>

#include <array>
#include <cmath>
#include <filesystem>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/media/png.h"
#include "media/test_images.h"

namespace mdm {
namespace {

using namespace std::string_literals;
using test::decode;
using test::gradient;
using test::noise;

ImageFormat format_of(const std::string& bytes) {
  return image_format(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

TEST(Decode, JpegOfColourAndGray) {
  for (const int channels : {1, 3}) {
    for (const bool progressive : {false, true}) {
      for (const auto subsampling : {test::Subsampling::k444, test::Subsampling::k420}) {
        const Image image = gradient(61, 35, channels);
        const std::string jpeg = test::jpeg_of(image, subsampling, 95, progressive);
        EXPECT_EQ(format_of(jpeg), ImageFormat::kJpeg);
        EXPECT_LT(test::mean_difference(decode(jpeg), image), 2.5) << channels << progressive;
      }
    }
  }
}

// A picture of which every sample is known: ink as Adobe stores it (255 = none), and as it is.
TEST(Decode, JpegOfCmyk) {
  Image cmyk(16, 16, 4);
  for (size_t i = 0; i < cmyk.pixels.size(); ++i) cmyk.pixels[i] = std::array<uint8_t, 4>{200, 100, 50, 180}[i % 4];
  const auto near = [](const Image& image, int r, int g, int b) {
    EXPECT_EQ(image.channels, 3);
    EXPECT_NEAR(image.pixels[0], r, 3);
    EXPECT_NEAR(image.pixels[1], g, 3);
    EXPECT_NEAR(image.pixels[2], b, 3);
  };
  near(decode(test::cmyk_jpeg_of(cmyk, true)), 200 * 180 / 255, 100 * 180 / 255, 50 * 180 / 255);
  // libjpeg stores YCCK with Adobe's segment, here (255 - 200, 128, 128, 180); without the segment these count
  // as plain CMYK with 255 = full ink.
  std::fill(cmyk.pixels.begin(), cmyk.pixels.end(), uint8_t{200});
  for (size_t i = 3; i < cmyk.pixels.size(); i += 4) cmyk.pixels[i] = 180;
  near(decode(test::cmyk_jpeg_of(cmyk, false)), 200 * 75 / 255, 127 * 75 / 255, 127 * 75 / 255);
}

// What the reference's reader does otherwise; its own outputs are golden cases of kind reader.
TEST(Decode, AsMlx) {
  DecodeOptions mlx;
  mlx.as_mlx = true;
  const std::string gray = test::jpeg_of(gradient(20, 12, 1));
  const Image three = decode(gray, mlx);
  EXPECT_EQ(three.channels, 3);
  EXPECT_EQ(three.pixels[0], decode(gray).pixels[0]);
  EXPECT_EQ(three.pixels[2], decode(gray).pixels[0]);
  Image inks(16, 16, 4);
  for (size_t i = 0; i < inks.pixels.size(); ++i) inks.pixels[i] = std::array<uint8_t, 4>{200, 100, 50, 180}[i % 4];
  EXPECT_NEAR(decode(test::cmyk_jpeg_of(inks, true), mlx).pixels[1], 100, 3);
  EXPECT_EQ(decode(test::with_orientation(test::jpeg_of(gradient(20, 12, 3)), 6, true), mlx).width, 20);
  const Image rgba = noise(9, 7, 4);
  EXPECT_EQ(decode(encode_png(rgba), mlx).pixels, to_rgb(rgba, AlphaRule::kDrop).pixels);
  EXPECT_EQ(decode(encode_png(noise(9, 7, 2)), mlx).channels, 2);
  // A wrong checksum passes, a cut file doesn't.
  std::string png = encode_png(rgba);
  png[png.size() - 13] = static_cast<char>(png[png.size() - 13] ^ 1);  // of the last IDAT chunk
  EXPECT_THROW(decode(png), DataError);
  EXPECT_EQ(decode(png, mlx).pixels, to_rgb(rgba, AlphaRule::kDrop).pixels);
  EXPECT_THROW(decode(png.substr(0, png.size() / 2), mlx), DataError);
}

TEST(Decode, JpegWithBytesBeforeAMarkerOrBehindTheEnd) {
  const Image image = gradient(40, 24, 3);
  const std::string jpeg = test::jpeg_of(image);
  std::string padded = jpeg;
  padded.insert(padded.size() - 2, "abc");
  EXPECT_EQ(test::largest_difference(decode(padded), decode(jpeg)), 0);
  EXPECT_EQ(test::largest_difference(decode(jpeg + "trailing"), decode(jpeg)), 0);
}

// A colour in each corner tells where each corner went.
TEST(Decode, ExifOrientations) {
  Image upright(48, 32, 3, 255);
  const auto paint = [&](int left, int top, uint8_t value) {
    for (int y = 0; y < 16; ++y) std::fill_n(upright.row(top + y) + 3 * left, 3 * 16, value);
  };
  paint(0, 0, 0);
  paint(32, 0, 80);
  paint(0, 16, 160);
  // What is stored for an orientation: the inverse of what a viewer does with it.
  const int inverse[] = {0, 1, 2, 3, 4, 5, 8, 7, 6};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image stored = apply_orientation(upright, inverse[orientation]);
    EXPECT_EQ(stored.width, orientation < 5 ? 48 : 32);
    for (const bool big_endian : {false, true}) {
      const std::string jpeg = test::with_orientation(test::jpeg_of(stored), orientation, big_endian);
      EXPECT_LT(test::mean_difference(decode(jpeg), upright), 1.5) << orientation;
      DecodeOptions as_stored;
      as_stored.apply_exif_orientation = false;
      EXPECT_LT(test::mean_difference(decode(jpeg, as_stored), stored), 1.5) << orientation;
    }
  }
}

// By the definition of the tag: which stored corner is the upright top left one, and the next to the right.
TEST(Decode, OrientationsAreThoseOfTheStandard) {
  Image stored(3, 2, 1);
  stored.pixels = {1, 2, 3, 4, 5, 6};
  const std::vector<std::vector<uint8_t>> expected = {{},
                                                      {1, 2, 3, 4, 5, 6},
                                                      {3, 2, 1, 6, 5, 4},
                                                      {6, 5, 4, 3, 2, 1},
                                                      {4, 5, 6, 1, 2, 3},
                                                      {1, 4, 2, 5, 3, 6},
                                                      {4, 1, 5, 2, 6, 3},
                                                      {6, 3, 5, 2, 4, 1},
                                                      {3, 6, 2, 5, 1, 4}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    EXPECT_EQ(apply_orientation(stored, orientation).pixels, expected[static_cast<size_t>(orientation)]) << orientation;
  }
  EXPECT_THROW(apply_orientation(stored, 0), Error);
  EXPECT_THROW(apply_orientation(stored, 9), Error);
}

TEST(Decode, PngOfAllChannelCounts) {
  for (int channels = 1; channels <= 4; ++channels) {
    static constexpr int kColours[] = {0, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                                       PNG_COLOR_TYPE_RGB_ALPHA};
    const Image image = noise(37, 21, channels);
    for (const bool interlaced : {false, true}) {
      test::RawPng raw;
      raw.width = image.width;
      raw.height = image.height;
      raw.colour = kColours[channels];
      raw.interlaced = interlaced;
      raw.row = [&](int y) { return std::string(reinterpret_cast<const char*>(image.row(y)), image.row_bytes()); };
      const std::string png = test::png_of(raw);
      EXPECT_EQ(format_of(png), ImageFormat::kPng);
      EXPECT_EQ(test::largest_difference(decode(png), image), 0) << channels << interlaced;
    }
  }
}

TEST(Decode, PngOf16BitsKeepsTheUpperHalf) {
  const Image image = noise(9, 7, 6 / 2);
  test::RawPng raw;
  raw.width = 9;
  raw.height = 7;
  raw.depth = 16;
  raw.colour = PNG_COLOR_TYPE_RGB;
  raw.row = [&](int y) {
    std::string row;
    for (size_t i = 0; i < image.row_bytes(); ++i) row += {static_cast<char>(image.row(y)[i]), '\xFF'};
    return row;
  };
  EXPECT_EQ(test::largest_difference(decode(test::png_of(raw)), image), 0);
}

TEST(Decode, PngOfFewBits) {
  for (const int depth : {1, 2, 4}) {
    test::RawPng raw;
    raw.width = 16;
    raw.height = 2;
    raw.depth = depth;
    raw.row = [&](int) { return std::string(static_cast<size_t>(2 * depth), '\x1B'); };  // 00011011
    const Image image = decode(test::png_of(raw));
    ASSERT_EQ(image.channels, 1);
    const int scale = 255 / ((1 << depth) - 1);
    for (int x = 0; x < 16; ++x) {
      const int per_byte = 8 / depth;
      const int value = 0x1B >> (8 - depth * (x % per_byte + 1)) & ((1 << depth) - 1);
      EXPECT_EQ(image.row(1)[x], value * scale) << depth << " " << x;
    }
  }
}

TEST(Decode, PngOfPalettesAndTransparentColours) {
  test::RawPng raw;
  raw.width = 4;
  raw.height = 1;
  raw.depth = 8;
  raw.colour = PNG_COLOR_TYPE_PALETTE;
  raw.palette = "\x01\x02\x03\x04\x05\x06\x07\x08\x09"s;
  raw.row = [](int) { return "\0\1\2\1"s; };
  EXPECT_EQ(decode(test::png_of(raw)).pixels, (std::vector<uint8_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 4, 5, 6}));
  raw.palette_alpha = "\x80"s;
  EXPECT_EQ(decode(test::png_of(raw)).pixels,
            (std::vector<uint8_t>{1, 2, 3, 128, 4, 5, 6, 255, 7, 8, 9, 255, 4, 5, 6, 255}));

  test::RawPng gray;
  gray.width = 3;
  gray.height = 1;
  gray.transparent_gray = 7;
  gray.row = [](int) { return "\x05\x07\x09"s; };
  EXPECT_EQ(decode(test::png_of(gray)).pixels, (std::vector<uint8_t>{5, 255, 7, 0, 9, 255}));
}

TEST(Decode, Webp) {
  for (const int channels : {3, 4}) {
    const Image image = gradient(50, 33, channels);
    const std::string lossless = test::webp_of(image, true);
    EXPECT_EQ(format_of(lossless), ImageFormat::kWebp);
    EXPECT_EQ(test::largest_difference(decode(lossless), image), 0);
    EXPECT_LT(test::mean_difference(decode(test::webp_of(image, false)), image), 3);
  }
}

TEST(Decode, Bmp) {
  for (const int width : {1, 2, 3, 4, 41}) {
    const Image image = noise(width, 13, 3);
    const std::string bmp = test::bmp_of(image);
    EXPECT_EQ(format_of(bmp), ImageFormat::kBmp);
    EXPECT_EQ(test::largest_difference(decode(bmp), image), 0);
  }
}

TEST(Decode, Tga) {
  for (const int channels : {1, 3, 4}) {
    for (const bool run_length : {false, true}) {
      const Image image = noise(23, 11, channels);
      const std::string tga = test::tga_of(image, run_length);
      EXPECT_EQ(format_of(tga), ImageFormat::kTga);
      EXPECT_EQ(test::largest_difference(decode(tga), image), 0) << channels << run_length;
    }
  }
}

TEST(Decode, Pnm) {
  for (const int channels : {1, 3}) {
    const Image image = noise(23, 11, channels);
    const std::string pnm = test::pnm_of(image);
    EXPECT_EQ(format_of(pnm), ImageFormat::kPnm);
    EXPECT_EQ(test::largest_difference(decode(pnm), image), 0);
  }
  EXPECT_EQ(decode("P5 3 1 15\n\x00\x05\x0F"s).pixels, (std::vector<uint8_t>{0, 85, 255}));
  EXPECT_EQ(decode("P5 2 1 65535\n\x80\x00\xFF\xFF"s).pixels, (std::vector<uint8_t>{128, 255}));
  EXPECT_EQ(decode("P5#c\n#d\n2#e\n1 1\n\x00\x01"s).pixels, (std::vector<uint8_t>{0, 255}));
}

TEST(Decode, TheNameDoesNotMatter) {
  const auto folder = std::filesystem::temp_directory_path() / concat("mdm_decode_test_", ::getpid());
  make_writable_folder(folder);
  const Image image = noise(8, 8, 3);
  write_file(folder / "x.jpg", test::bmp_of(image));
  EXPECT_EQ(test::largest_difference(load_image(folder / "x.jpg"), image), 0);
  EXPECT_THROW(load_image(folder), DataError);
  EXPECT_THROW(load_image(folder / "absent.png"), DataError);
  std::filesystem::remove_all(folder);
}

TEST(Decode, ErrorsNameTheFileAndWhatItBeginsWith) {
  EXPECT_EQ(test::decode_error(""), "test.img: is empty");
  EXPECT_NE(test::decode_error("<html>\x1b[2J").find("\"<html>\\x1b[2J\""), std::string::npos);
  EXPECT_THROW(decode(std::string(100, '\0')), DataError);
}

}  // namespace
}  // namespace mdm
