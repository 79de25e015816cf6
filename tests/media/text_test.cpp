// Letters on pictures, and sizes of pictures from the beginnings of their files.
#include "mdm/media/text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "mdm/core/error.h"
#include "mdm/media/decode.h"
#include "mdm/media/png.h"
#include "media/test_images.h"

namespace mdm {
namespace {

using test::gradient;

constexpr std::array<uint8_t, 3> kBlack = {0, 0, 0};

int dark_pixels(const Image& image, int left = 0, int right = 1 << 20) {
  int count = 0;
  for (int y = 0; y < image.height; ++y) {
    for (int x = left; x < std::min(right, image.width); ++x) count += image.row(y)[3 * x] == 0 ? 1 : 0;
  }
  return count;
}

TEST(Text, WhatTheFontLacksIsAQuestionMark) {
  EXPECT_EQ(drawable_text("plain ~!"), "plain ~!");
  EXPECT_EQ(drawable_text("caf\xC3\xA9 \xF0\x9F\x98\x80"), "caf? ?");
  EXPECT_EQ(drawable_text("\xFF\xFE"), "??");
  EXPECT_EQ(drawable_text(" \t a \r\n\n b  "), "a b");
  EXPECT_EQ(drawable_text(std::string("\0\x1B[31m", 6)), "??[31m");
  EXPECT_EQ(drawable_text(""), "");
}

TEST(Text, LettersAreDrawnWhereTheyBelong) {
  Image page(60, 16, 3, 255);
  draw_text(page, 10, 2, "il", kBlack);
  EXPECT_GT(dark_pixels(page), 8);
  EXPECT_EQ(dark_pixels(page, 0, 10), 0);
  EXPECT_EQ(dark_pixels(page, 10 + text_width("il")), 0);
  Image other(60, 16, 3, 255);
  draw_text(other, 10, 2, "MW", kBlack);
  EXPECT_GT(dark_pixels(other), dark_pixels(page));
  EXPECT_EQ(text_width(""), 0);
  EXPECT_EQ(text_width("ab"), text_width("a") + text_width("b"));
  for (char c = ' ' + 1; c < 0x7F; ++c) {  // every letter shows, and stays between the lines
    Image one(20, kTextLineHeight, 3, 255);
    draw_text(one, 0, 0, std::string(1, c), kBlack);
    Image tall(20, 3 * kTextLineHeight, 3, 255);
    draw_text(tall, 0, 0, std::string(1, c), kBlack);
    EXPECT_GT(dark_pixels(one), 0) << c;
    EXPECT_EQ(dark_pixels(one), dark_pixels(tall)) << c;
  }
}

TEST(Text, WhatLeavesThePictureIsCut) {
  for (const auto& [x, y] : {std::pair{-7, -5}, {15, 3}, {-1000, 0}, {0, 1000}, {0, -1000}}) {
    Image page(16, 8, 3, 255);
    EXPECT_NO_THROW(draw_text(page, x, y, "Wide text, and more of it", kBlack));
  }
  Image gray(16, 8, 1, 255);
  EXPECT_THROW(draw_text(gray, 0, 0, "x", kBlack), Error);
}

TEST(Text, LinesAreBrokenAtSpaces) {
  const std::string text = "the quick brown fox jumps over the lazy dog";
  const auto lines = wrap_text(text, 90, 10);
  ASSERT_GT(lines.size(), 2u);
  std::string joined;
  for (const auto& line : lines) {
    EXPECT_LE(text_width(line), 90) << line;
    joined += (joined.empty() ? "" : " ") + line;
  }
  EXPECT_EQ(joined, text);
  EXPECT_TRUE(wrap_text("", 90, 3).empty());
  EXPECT_TRUE(wrap_text(" \n ", 90, 3).empty());
  EXPECT_THROW(wrap_text("x", 3, 3), Error);
}

TEST(Text, LongTextsEndInDots) {
  const auto lines = wrap_text("the quick brown fox jumps over the lazy dog", 90, 2);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1].substr(lines[1].size() - 3), "...");
  EXPECT_LE(text_width(lines[1]), 90);
  const auto word = wrap_text(std::string(5000, 'w'), 64, 3);  // broken inside, for there is no space
  ASSERT_EQ(word.size(), 3u);
  for (const auto& line : word) EXPECT_LE(text_width(line), 64);
  EXPECT_EQ(word[2].substr(word[2].size() - 3), "...");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(wrap_text(std::string(10 << 20, 'x'), 160, 4).size(), 4u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  EXPECT_EQ(wrap_text("a", 90, 1), std::vector<std::string>{"a"});
}

std::optional<ImageSize> size_of(std::string_view bytes) {
  return image_size(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

std::vector<std::string> files_of(int width, int height) {
  const Image rgb = gradient(width, height, 3), gray = gradient(width, height, 1), rgba = gradient(width, height, 4);
  return {test::jpeg_of(rgb),
          test::jpeg_of(gray),
          test::jpeg_of(rgb, test::Subsampling::k420, 80, /*progressive=*/true),
          test::with_orientation(test::jpeg_of(rgb), 6, true),
          test::with_orientation(test::jpeg_of(rgb), 3, false),
          encode_png(rgb),
          encode_png(rgba),
          test::webp_of(rgb, false),
          test::webp_of(rgba, true),
          test::bmp_of(rgb),
          test::tga_of(rgb, true),
          test::pnm_of(rgb),
          test::pnm_of(gray)};
}

TEST(ImageSize, IsThatOfTheDecodedPicture) {
  for (const auto& [width, height] : {std::pair{1, 1}, {37, 20}, {20, 300}, {513, 2}}) {
    for (const std::string& file : files_of(width, height)) {
      const Image image = test::decode(file);
      const auto size = size_of(file);
      ASSERT_TRUE(size) << width << " x " << height << ", " << printable(file, 20);
      EXPECT_EQ(size->width, image.width);
      EXPECT_EQ(size->height, image.height);
    }
  }
}

// A beginning gives the right size or none.
TEST(ImageSize, OfABeginning) {
  for (const std::string& file : files_of(37, 20)) {
    const auto whole = size_of(file);
    for (size_t count = 0; count < file.size(); ++count) {
      const std::string part = file.substr(0, count);  // of its own, so that reading past it is found
      const auto size = size_of(std::string_view(part.data(), part.size()));
      if (!size) continue;
      EXPECT_EQ(size->width, whole->width) << count;
      EXPECT_EQ(size->height, whole->height) << count;
    }
  }
  EXPECT_FALSE(size_of(""));
  EXPECT_FALSE(size_of("<html>"));
}

// What decodes has the size that was told.
TEST(ImageSize, OfDamagedFiles) {
  std::mt19937_64 random(5);
  for (const std::string& file : files_of(37, 20)) {
    for (int i = 0; i < 300; ++i) {
      std::string mutant = file;
      const size_t changes = 1 + random() % 3;
      for (size_t k = 0; k < changes; ++k) {
        mutant[random() % std::min<size_t>(mutant.size(), 200)] = static_cast<char>(random());
      }
      const auto size = size_of(mutant);
      if (!size) continue;
      EXPECT_GT(size->width, 0);
      EXPECT_GT(size->height, 0);
      try {
        DecodeOptions options;
        options.max_pixels = 1 << 16;
        const Image image = test::decode(mutant, options);
        EXPECT_EQ(size->width, image.width);
        EXPECT_EQ(size->height, image.height);
      } catch (const DataError&) {
      }
    }
  }
}

}  // namespace
}  // namespace mdm
