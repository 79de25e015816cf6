// Files that are cut, broken or made to hurt (class P9): a DataError in bounded time and memory.
#include <gtest/gtest.h>
#include <png.h>

#include "mdm/core/error.h"
#include "mdm/media/decode.h"
#include "mdm/media/png.h"
#include "media/test_images.h"

namespace mdm {
namespace {

using namespace std::string_literals;
using test::cost_of;
using test::decode;
using test::decode_error;
using test::gradient;
using test::noise;
using test::patience;

struct Sample {
  const char* name;
  std::string bytes;
};

std::vector<Sample> sound_files() {
  const Image image = noise(64, 48, 3);
  std::vector<Sample> files = {{"jpeg", test::jpeg_of(image)},
                               {"jpeg 4:2:0", test::jpeg_of(image, test::Subsampling::k420)},
                               {"progressive jpeg", test::jpeg_of(image, test::Subsampling::k420, 90, true)},
                               {"cmyk jpeg", test::cmyk_jpeg_of(noise(64, 48, 4), true)},
                               {"png", encode_png(image)},
                               {"gray alpha png", encode_png(noise(64, 48, 2))},
                               {"webp", test::webp_of(image, false)},
                               {"lossless webp", test::webp_of(image, true)},
                               {"bmp", test::bmp_of(image)},
                               {"tga", test::tga_of(image, false)},
                               {"run-length tga", test::tga_of(image, true)},
                               {"pnm", test::pnm_of(image)}};
  test::RawPng raw;
  raw.width = 64;
  raw.height = 48;
  raw.depth = 16;
  raw.colour = PNG_COLOR_TYPE_RGB_ALPHA;
  raw.interlaced = true;
  const Image wide = noise(64 * 2, 48, 4);
  raw.row = [&](int y) { return std::string(reinterpret_cast<const char*>(wide.row(y)), wide.row_bytes()); };
  files.push_back({"interlaced 16-bit png", test::png_of(raw)});
  return files;
}

TEST(Hostile, CutFiles) {
  for (const Sample& sample : sound_files()) {
    EXPECT_NO_THROW(decode(sample.bytes)) << sample.name;
    for (const double part : {0.9, 0.5, 0.1, 0.02, 0.005}) {
      const auto kept = static_cast<size_t>(static_cast<double>(sample.bytes.size()) * part);
      const auto cost = cost_of([&] { decode_error(std::string_view(sample.bytes).substr(0, kept)); });
      EXPECT_LT(cost.seconds, patience()) << sample.name << " " << part;
    }
    for (size_t kept = 0; kept < 64; ++kept) decode_error(std::string_view(sample.bytes).substr(0, kept));
    for (size_t lost = 1; lost <= 4; ++lost) {
      SCOPED_TRACE(sample.name);
      decode_error(std::string_view(sample.bytes).substr(0, sample.bytes.size() - lost));
    }
  }
}

TEST(Hostile, HugeSidesAreRefusedBeforeAnythingIsAllocated) {
  const Image image = gradient(32, 32, 3);
  std::vector<Sample> files;
  std::string jpeg = test::jpeg_of(image);
  test::put_be16(jpeg, test::jpeg_frame_at(jpeg) + 5, 65500);
  test::put_be16(jpeg, test::jpeg_frame_at(jpeg) + 7, 65500);
  files.push_back({"jpeg", jpeg});
  std::string progressive = test::jpeg_of(image, test::Subsampling::k420, 90, true);
  test::put_be16(progressive, test::jpeg_frame_at(progressive) + 5, 65500);
  test::put_be16(progressive, test::jpeg_frame_at(progressive) + 7, 65500);
  files.push_back({"progressive jpeg", progressive});
  std::string png = encode_png(image);
  test::put_be32(png, 16, 65500);
  test::put_be32(png, 20, 65500);
  files.push_back({"png", test::with_fixed_checksums(png)});
  std::string lossless = test::webp_of(image, true);
  lossless.replace(21, 4, "\xFF\xFF\xFF\x0F");  // 16384 x 16384
  files.push_back({"lossless webp", lossless});
  std::string webp = test::webp_of(image, false);
  webp.replace(26, 4, "\xFF\x3F\xFF\x3F");  // 16383 x 16383
  files.push_back({"webp", webp});
  for (const uint32_t side : {65500u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu, 0u}) {
    std::string bmp = test::bmp_of(image);
    test::put_le32(bmp, 18, side);
    test::put_le32(bmp, 22, side);
    files.push_back({"bmp", bmp});
  }
  std::string tga = test::tga_of(image, true);
  tga.replace(12, 4, "\xDC\xFF\xDC\xFF");
  files.push_back({"tga", tga});
  files.push_back({"pnm", "P6 65500 65500 255\n"s + std::string(1000, 'x')});
  files.push_back({"pnm", "P6 99999999999999999999 1 255\n"s + std::string(1000, 'x')});
  for (const Sample& sample : files) {
    SCOPED_TRACE(sample.name);
    const auto cost = cost_of([&] { decode_error(sample.bytes); });
    EXPECT_LT(cost.seconds, 0.1 * patience());
    EXPECT_LT(cost.peak_mib, 8);
  }
  DecodeOptions small;
  small.max_pixels = 32 * 32 - 1;
  for (const Sample& sample : sound_files()) {
    EXPECT_NE(decode_error(sample.bytes, small).find("more than the 1023 allowed"), std::string::npos) << sample.name;
  }
}

// The largest picture allowed, in a file of a hundredth of its size: as much memory as it declares, no more.
TEST(Hostile, PngThatUnpacksToTheLimit) {
  const std::string rows = test::deflated(std::string((5792 * 3 + 1) * size_t{5792}, '\0'));
  const std::string png = test::png_with_chunks(5792, 5792, 8, PNG_COLOR_TYPE_RGB, test::png_chunk("IDAT", rows));
  const auto cost = cost_of([&] { decode(png); });
  EXPECT_LT(cost.seconds, 2 * patience());
  EXPECT_LT(cost.peak_mib, 64 + 5792.0 * 5792 * 3 / 1048576);
}

TEST(Hostile, PngWithMoreDataThanPixels) {
  const std::string rows = test::deflated(std::string(size_t{64} << 20, '\0'));
  const std::string png = test::png_with_chunks(8, 8, 8, PNG_COLOR_TYPE_RGB, test::png_chunk("IDAT", rows));
  const auto cost = cost_of([&] {
    try {
      decode(png);
    } catch (const DataError&) {  // to refuse it is right too
    }
  });
  EXPECT_LT(cost.seconds, patience());
  EXPECT_LT(cost.peak_mib, 64);
}

TEST(Hostile, PngWithBombsInItsDescriptions) {
  const std::string bomb = test::deflated(std::string(size_t{64} << 20, 'x'));
  const std::string pixels = test::png_chunk("IDAT", test::deflated(std::string((8 * 3 + 1) * 8, '\0')));
  const std::vector<Sample> chunks = {{"iCCP", test::png_chunk("iCCP", "p\0\0"s + bomb)},
                                      {"zTXt", test::png_chunk("zTXt", "k\0\0"s + bomb)},
                                      {"iTXt", test::png_chunk("iTXt", "k\0\1\0\0\0"s + bomb)}};
  for (const Sample& chunk : chunks) {
    const std::string png = test::png_with_chunks(8, 8, 8, PNG_COLOR_TYPE_RGB, chunk.bytes + pixels);
    const auto cost = cost_of([&] { EXPECT_EQ(decode(png).width, 8); });
    EXPECT_LT(cost.seconds, patience()) << chunk.name;
    EXPECT_LT(cost.peak_mib, 32) << chunk.name;
    const auto* data = reinterpret_cast<const uint8_t*>(png.data());
    const auto text_cost = cost_of([&] {
      if (chunk.name == "iCCP"s) {
        EXPECT_TRUE(read_png_text(data, png.size(), "t").empty());
      } else {
        EXPECT_THROW(read_png_text(data, png.size(), "t"), DataError);
      }
    });
    EXPECT_LT(text_cost.seconds, patience()) << chunk.name;
    EXPECT_LT(text_cost.peak_mib, 32) << chunk.name;
  }
}

TEST(Hostile, PngWithAMillionChunks) {
  std::string chunks;
  for (int i = 0; i < 1000000; ++i) chunks += "\0\0\0\0tEXt\xBF\x9E\x0F\x9D"s;
  const std::string png = test::with_fixed_checksums(test::png_with_chunks(
      8, 8, 8, PNG_COLOR_TYPE_RGB, chunks + test::png_chunk("IDAT", test::deflated(std::string(200, '\0')))));
  const auto cost = cost_of([&] { EXPECT_EQ(decode(png).width, 8); });
  EXPECT_LT(cost.seconds, patience());
  EXPECT_LT(cost.peak_mib, 48);
}

TEST(Hostile, JpegWithThousandsOfScans) {
  const std::string jpeg = test::jpeg_of(gradient(256, 256, 3), test::Subsampling::k444, 90, true);
  const size_t last_scan = jpeg.rfind("\xFF\xDA");
  const std::string scan = jpeg.substr(last_scan, jpeg.size() - 2 - last_scan);
  std::string many = jpeg.substr(0, jpeg.size() - 2);
  for (int i = 0; i < 10000; ++i) many += scan;
  many += "\xFF\xD9";
  const auto cost = cost_of([&] { EXPECT_NE(decode_error(many).find("scans"), std::string::npos); });
  EXPECT_LT(cost.seconds, patience());
  EXPECT_LT(cost.peak_mib, 32);
}

// Almost empty scans: many on a small picture, fewer on a large one, and as many as cost most.
TEST(Hostile, JpegWithManyEmptyScans) {
  const auto with_scans = [](int side, int more) {
    const std::string jpeg = test::jpeg_of(Image(side, side, 1, 128), test::Subsampling::k444, 90, true);
    const size_t last_scan = jpeg.rfind("\xFF\xDA");
    const std::string scan = jpeg.substr(last_scan, jpeg.size() - 2 - last_scan);
    std::string many = jpeg.substr(0, jpeg.size() - 2);
    for (int i = 0; i < more; ++i) many += scan;
    return many + "\xFF\xD9";
  };
  EXPECT_NE(decode_error(with_scans(4096, 85)).find("scans of 4096 x 4096 pixels"), std::string::npos);
  for (const std::string& jpeg : {with_scans(64, 85), with_scans(4096, 24), with_scans(2300, 85)}) {
    const auto cost = cost_of([&] {
      try {
        decode(jpeg);
      } catch (const DataError&) {  // repeated refinements are corrupt
      }
    });
    EXPECT_LT(cost.seconds, 2 * patience());
    EXPECT_LT(cost.peak_mib, 64 + 48);  // coefficients and samples of the declared picture
  }
}

TEST(Hostile, JpegWithoutPixelsOrEnd) {
  EXPECT_NE(decode_error("\xFF\xD8\xFF\xD9"s).find("holds no picture"), std::string::npos);
  EXPECT_NE(decode_error("\xFF\xD8\xFF"s).find("holds no picture"), std::string::npos);
  const std::string jpeg = test::jpeg_of(gradient(16, 16, 3));
  EXPECT_NE(decode_error(std::string_view(jpeg).substr(0, jpeg.size() - 2)).find("end marker"), std::string::npos);
  // The pixels are cut, but an end marker follows.
  EXPECT_NE(decode_error(test::jpeg_of(noise(64, 64, 3)).substr(0, 4000) + "\xFF\xD9").find("broken JPEG"),
            std::string::npos);
}

TEST(Hostile, FlippedBitsInPngAreFound) {
  const std::string png = encode_png(noise(16, 16, 3));
  for (size_t at = 8; at < png.size(); at += 5) {
    std::string flipped = png;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
    decode_error(flipped);
  }
}

TEST(Hostile, WebpAnimationsAreRefused) {
  std::string webp = "RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0\x02\0\0\0\x07\0\0\x07\0\0"s + std::string(64, '\0');
  webp[4] = static_cast<char>(webp.size() - 8);
  EXPECT_NE(decode_error(webp).find("animation"), std::string::npos);
}

TEST(Hostile, ExifIsReadWithinBounds) {
  const std::string block = test::exif_block(6, true);
  const auto orientation = [](const std::string& bytes) {
    const std::vector<uint8_t> copy(bytes.begin(), bytes.end());
    return exif_orientation(copy.data(), copy.size());
  };
  EXPECT_EQ(orientation(block), 6);
  EXPECT_EQ(orientation(test::exif_block(8, false)), 8);
  for (size_t kept = 0; kept < block.size(); ++kept) {
    const int value = orientation(block.substr(0, kept));
    EXPECT_TRUE(value == 1 || value == 6) << kept;
  }
  EXPECT_EQ(orientation(test::exif_block(0, true)), 1);
  EXPECT_EQ(orientation(test::exif_block(9, true)), 1);
  std::string far = block;
  test::put_be32(far, 4, 0xFFFFFFFF);
  EXPECT_EQ(orientation(far), 1);
  std::string many = block;
  test::put_be16(many, 8, 0xFFFF);
  EXPECT_EQ(orientation(many), 6);
}

}  // namespace
}  // namespace mdm
