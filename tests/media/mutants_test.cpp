// Random damage to sound files: a picture or a DataError, nothing else. MDM_MUTANTS sets how many per parser.
#include <gtest/gtest.h>
#include <png.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/media/decode.h"
#include "mdm/media/png.h"
#include "media/test_images.h"

namespace mdm {
namespace {

using test::gradient;
using test::noise;

size_t mutant_count() {
  const char* value = std::getenv("MDM_MUTANTS");
  return value == nullptr ? 2000 : static_cast<size_t>(std::strtoull(value, nullptr, 10));
}

// Choices of mutant `number`, one after the other.
class Dice {
 public:
  explicit Dice(uint64_t number) { address_.seed = number; }
  size_t below(size_t bound) { return random_below(address_, next_++, bound); }

 private:
  RandomAddress address_;
  uint64_t next_ = 0;
};

std::string mutated(std::string bytes, const std::string& other, Dice& dice) {
  static constexpr uint32_t kNumbers[] = {0,      1,      0x7F,       0x80,       0xFF,       0x7FFF,
                                          0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01000000};
  const size_t changes = 1 + dice.below(4);
  for (size_t i = 0; i < changes && bytes.size() > 8; ++i) {
    // Half of the changes go where headers are.
    const size_t reach = dice.below(2) == 0 ? std::min<size_t>(bytes.size(), 128) : bytes.size();
    const size_t at = dice.below(reach);
    switch (dice.below(6)) {
      case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << dice.below(8))); break;
      case 1: bytes[at] = static_cast<char>(dice.below(256)); break;
      case 2: bytes.resize(at); break;
      case 3: {
        const uint32_t number = kNumbers[dice.below(std::size(kNumbers))];
        const bool big = dice.below(2) == 0;
        for (size_t k = 0; k < 4 && at + k < bytes.size(); ++k) {
          bytes[at + k] = static_cast<char>(number >> (8 * (big ? 3 - k : k)));
        }
        break;
      }
      case 4: bytes.erase(at, 1 + dice.below(16)); break;
      case 5: bytes.insert(at, other, dice.below(other.size()), 1 + dice.below(64)); break;
    }
  }
  return bytes;
}

void run_mutants(const std::vector<std::string>& seeds, const std::function<void(const uint8_t*, size_t)>& parse,
                 bool fix_checksums = false) {
  double slowest = 0;
  size_t accepted = 0;
  const size_t count = mutant_count();
  const auto all = test::cost_of([&] {
    for (size_t number = 0; number < count; ++number) {
      Dice dice(number);
      const std::string& seed = seeds[number % seeds.size()];
      std::string bytes = mutated(seed, seeds[dice.below(seeds.size())], dice);
      // Without this, nearly every PNG would fail at its first checksum.
      if (fix_checksums && dice.below(4) != 0) bytes = test::with_fixed_checksums(std::move(bytes));
      const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
      std::memcpy(copy.get(), bytes.data(), bytes.size());
      const auto cost = test::cost_of([&] {
        try {
          parse(copy.get(), bytes.size());
          ++accepted;
        } catch (const DataError&) {
        }
      });
      slowest = std::max(slowest, cost.seconds);
      ASSERT_LT(cost.seconds, test::patience()) << "mutant " << number;
    }
  });
  EXPECT_LT(all.peak_mib, 64);
  std::cout << count << " mutants, " << accepted << " accepted, slowest " << slowest * 1e3 << " ms\n";
}

void decode_mutant(const uint8_t* data, size_t size) {
  DecodeOptions options;
  options.max_pixels = 1 << 20;
  const Image image = decode_image(data, size, "mutant", options);
  check_image(image, "mutant");
  ASSERT_LE(static_cast<uint64_t>(image.width) * static_cast<uint64_t>(image.height), options.max_pixels);
}

TEST(Mutants, Jpeg) {
  const Image image = gradient(48, 40, 3);
  run_mutants({test::jpeg_of(image), test::jpeg_of(image, test::Subsampling::k420, 80, true),
               test::jpeg_of(gradient(30, 20, 1), test::Subsampling::k444, 50), test::jpeg_of(noise(24, 24, 3)),
               test::cmyk_jpeg_of(noise(24, 24, 4), true), test::with_orientation(test::jpeg_of(image), 6, true)},
              decode_mutant);
}

TEST(Mutants, Png) {
  std::vector<std::string> seeds;
  for (int channels = 1; channels <= 4; ++channels) seeds.push_back(encode_png(noise(12, 9, channels), {{"k", "t"}}));
  test::RawPng raw;
  raw.width = 16;
  raw.height = 12;
  raw.depth = 4;
  raw.colour = PNG_COLOR_TYPE_PALETTE;
  raw.interlaced = true;
  raw.palette = std::string(48, '\x55');
  raw.palette_alpha = std::string(5, '\x33');
  raw.row = [](int y) { return std::string(8, static_cast<char>(y * 17)); };
  seeds.push_back(test::png_of(raw));
  raw.depth = 16;
  raw.colour = PNG_COLOR_TYPE_GRAY;
  raw.palette.clear();
  raw.palette_alpha.clear();
  raw.transparent_gray = 0x1111;
  raw.row = [](int y) { return std::string(32, static_cast<char>(y * 17)); };
  seeds.push_back(test::png_of(raw));
  run_mutants(seeds, decode_mutant, true);
}

TEST(Mutants, Webp) {
  run_mutants({test::webp_of(gradient(40, 30, 3), false), test::webp_of(gradient(40, 30, 3), true),
               test::webp_of(gradient(40, 30, 4), false), test::webp_of(noise(16, 16, 4), true)},
              decode_mutant);
}

TEST(Mutants, BmpTgaPnm) {
  // An 8-bit BMP with a palette, and one of 16 bits with masks.
  std::string palette = test::bmp_of(Image(4, 4, 3));
  palette.resize(54);
  palette[28] = 8;
  palette[10] = 54 + 16;
  palette[46] = 4;
  palette += std::string(16, '\x44') + std::string(16, '\x02');
  std::string masks = test::bmp_of(Image(4, 4, 3));
  masks.resize(54);
  masks[28] = 16;
  masks[30] = 3;
  masks[10] = 54 + 12;
  masks += std::string("\0\xF8\0\0\xE0\x07\0\0\x1F\0\0\0", 12) + std::string(32, '\x5A');
  // A TGA with a colour map.
  std::string mapped("\0\1\1\0\0\2\0\x18\0\0\0\0\4\0\4\0\x08\x20", 18);
  mapped += std::string(6, '\x77') + std::string(16, '\1');
  for (const std::string& seed : {palette, masks, mapped}) EXPECT_EQ(test::decode(seed).width, 4);
  run_mutants(
      {test::bmp_of(noise(11, 7, 3)), palette, masks, test::tga_of(noise(11, 7, 3), false),
       test::tga_of(noise(11, 7, 4), true), mapped, test::pnm_of(noise(11, 7, 3)), test::pnm_of(noise(11, 7, 1))},
      decode_mutant);
}

TEST(Mutants, Exif) {
  run_mutants({test::exif_block(6, true), test::exif_block(3, false)}, [](const uint8_t* data, size_t size) {
    const int orientation = exif_orientation(data, size);
    ASSERT_GE(orientation, 1);
    ASSERT_LE(orientation, 8);
  });
}

TEST(Mutants, PngText) {
  const std::string packed = test::deflated("some text, some text, some text");
  const std::string chunks = test::png_chunk("zTXt", std::string("zipped\0\0", 8) + packed) +
                             test::png_chunk("iTXt", std::string("both\0\1\0en\0name\0", 15) + packed);
  const std::vector<std::string> seeds = {
      encode_png(Image(2, 2, 1), {{"parameters", "a cat\nSteps: 20"}, {"mdm", "{\"caf\xC3\xA9\": 1}"}}),
      test::png_with_chunks(1, 1, 8, PNG_COLOR_TYPE_GRAY, chunks)};
  run_mutants(
      seeds,
      [](const uint8_t* data, size_t size) {
        for (const auto& [keyword, text] : read_png_text(data, size, "mutant")) {
          ASSERT_LE(keyword.size() + text.size(), size_t{4} << 20);
        }
      },
      true);
}

}  // namespace
}  // namespace mdm
