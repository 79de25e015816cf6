// PNG files that we write, and their texts.
#include "mdm/media/png.h"

#include <gtest/gtest.h>
#include <png.h>

#include <filesystem>

#include "mdm/core/error.h"
#include "media/test_images.h"
#include "media/utf8.h"

namespace mdm {
namespace {

using namespace std::string_literals;
using test::noise;

PngText texts_of(const std::string& png, const PngTextLimits& limits = {}) {
  return read_png_text(reinterpret_cast<const uint8_t*>(png.data()), png.size(), "test.png", limits);
}

TEST(Png, RoundTrip) {
  for (int channels = 1; channels <= 4; ++channels) {
    for (const int level : {0, 1, 6, 9}) {
      const Image image = noise(31, 17, channels);
      EXPECT_EQ(test::largest_difference(test::decode(encode_png(image, {}, level)), image), 0);
    }
  }
  const Image smooth = test::gradient(256, 256, 3);
  EXPECT_LT(encode_png(smooth).size(), smooth.pixels.size() / 20);
}

TEST(Png, TextsRoundTrip) {
  const PngText texts = {{kPngParametersKey, "a cat\nSteps: 20, Seed: 7"},
                         {kPngSettingsKey, "{\"prompt\": \"caf\xC3\xA9 \xF0\x9F\x98\x80\"}"},
                         {"empty", ""},
                         {"markup", "<script>alert('1')</script>\t\""},
                         {"long", std::string(100000, 'x')}};
  const std::string png = encode_png(noise(4, 4, 3), texts);
  EXPECT_EQ(texts_of(png), texts);
  EXPECT_EQ(*find_png_text(texts, "mdm"), texts[1].second);
  EXPECT_EQ(find_png_text(texts, "absent"), nullptr);
  EXPECT_NO_THROW(test::decode(png));
}

// libpng reads the same texts.
TEST(Png, TextsAreReadByLibpng) {
  const std::string png = encode_png(noise(4, 4, 3), {{"parameters", "plain"}, {"mdm", "caf\xC3\xA9"}});
  struct Source {
    const std::string& bytes;
    size_t at;
  } source{png, 0};
  png_structp reader = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(reader);
  png_set_read_fn(reader, &source, [](png_structp p, png_bytep target, size_t count) {
    auto* from = static_cast<Source*>(png_get_io_ptr(p));
    from->bytes.copy(reinterpret_cast<char*>(target), count, from->at);
    from->at += count;
  });
  png_read_info(reader, info);
  png_textp texts = nullptr;
  ASSERT_EQ(png_get_text(reader, info, &texts, nullptr), 2);
  EXPECT_STREQ(texts[0].key, "parameters");
  EXPECT_STREQ(texts[0].text, "plain");
  EXPECT_EQ(texts[0].compression, PNG_TEXT_COMPRESSION_NONE);
  EXPECT_STREQ(texts[1].key, "mdm");
  EXPECT_STREQ(texts[1].text, "caf\xC3\xA9");
  EXPECT_EQ(texts[1].compression, PNG_ITXT_COMPRESSION_NONE);
  png_destroy_read_struct(&reader, &info, nullptr);
}

TEST(Png, TextsOfOtherPrograms) {
  const std::string packed = test::deflated("caf\xE9");
  const std::string packed_utf8 = test::deflated("caf\xC3\xA9");
  const std::string png = test::png_with_chunks(1, 1, 8, PNG_COLOR_TYPE_GRAY,
                                                test::png_chunk("tEXt", "latin\0caf\xE9"s) +
                                                    test::png_chunk("zTXt", "packed\0\0"s + packed) +
                                                    test::png_chunk("iTXt", "named\0\1\0fr\0nom\0"s + packed_utf8) +
                                                    test::png_chunk("iTXt", "plain\0\0\0\0\0\xC3\xA9\xFF"s));
  EXPECT_EQ(texts_of(png), (PngText{{"latin", "caf\xC3\xA9"},
                                    {"packed", "caf\xC3\xA9"},
                                    {"named", "caf\xC3\xA9"},
                                    {"plain", "\xC3\xA9\xEF\xBF\xBD"}}));
}

TEST(Png, BrokenTextsAreRefused) {
  const auto refused = [](const std::string& type, const std::string& data) {
    EXPECT_THROW(texts_of(test::png_with_chunks(1, 1, 8, PNG_COLOR_TYPE_GRAY, test::png_chunk(type, data))), DataError)
        << type;
  };
  refused("tEXt", "no end");
  refused("zTXt", "k\0"s);
  refused("zTXt", "k\0\1x"s);
  refused("zTXt", "k\0\0not packed"s);
  refused("zTXt", "k\0\0"s + test::deflated("cut short").substr(0, 6));
  refused("iTXt", "k\0"s);
  refused("iTXt", "k\0\0\0en"s);
  std::string damaged = encode_png(noise(2, 2, 1), {{"k", "value"}});
  damaged[damaged.find("value")] = 'V';
  EXPECT_THROW(texts_of(damaged), DataError);
  const std::string png = encode_png(noise(2, 2, 1), {{"k", "value"}});
  for (size_t kept = 0; kept < png.size(); ++kept) EXPECT_THROW(texts_of(png.substr(0, kept)), DataError) << kept;
}

TEST(Png, LimitsOfTexts) {
  const std::string png = encode_png(noise(2, 2, 1), {{"a", std::string(60, 'x')}, {"b", std::string(60, 'x')}});
  EXPECT_EQ(texts_of(png, {2, 122}).size(), 2u);
  EXPECT_THROW(texts_of(png, {1, 1000}), DataError);
  EXPECT_THROW(texts_of(png, {2, 121}), DataError);
  EXPECT_THROW(texts_of(png, {2, 30}), DataError);
}

TEST(Png, TextsMadeSound) {
  const std::string png = encode_png(noise(2, 2, 1), {{"k", "a\0b\xC3"s}});
  EXPECT_EQ(texts_of(png)[0].second, "a\xEF\xBF\xBD"s + "b\xEF\xBF\xBD");
}

TEST(Png, KeywordsAreChecked) {
  for (const std::string& keyword : {""s, std::string(80, 'k'), "caf\xC3\xA9"s, " k"s, "k "s, "a\nb"s, "a\0b"s}) {
    EXPECT_THROW(encode_png(noise(2, 2, 1), {{keyword, "x"}}), Error) << keyword;
  }
  EXPECT_NO_THROW(encode_png(noise(2, 2, 1), {{std::string(79, 'k'), "x"}}));
}

TEST(Png, WrongUseIsAnError) {
  Image broken = noise(4, 4, 3);
  broken.pixels.pop_back();
  EXPECT_THROW(encode_png(broken), Error);
  EXPECT_THROW(encode_png(Image()), Error);
  EXPECT_THROW(encode_png(noise(4, 4, 3), {}, 10), Error);
  EXPECT_THROW(write_png("/nonexistent-folder/x.png", noise(4, 4, 3)), Error);
}

TEST(Png, Files) {
  const auto path = std::filesystem::temp_directory_path() / concat("mdm_png_test_", ::getpid(), ".png");
  const Image image = noise(4, 4, 3);
  write_png(path, image, {{"k", "v"}});
  EXPECT_EQ(test::largest_difference(load_image(path), image), 0);
  EXPECT_EQ(read_png_text(path), (PngText{{"k", "v"}}));
  std::filesystem::remove(path);
}

// The table of maximal subparts in the Unicode standard, section 3.9.
TEST(SoundUtf8, ReplacesAsUnicodeRecommends) {
  const auto shown = [](const std::string& text) {
    std::string out = detail::sound_utf8(text);
    for (size_t at; (at = out.find("\xEF\xBF\xBD")) != std::string::npos;) out.replace(at, 3, "?");
    return out;
  };
  EXPECT_EQ(shown("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z"), "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z");
  EXPECT_EQ(shown("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), "????????A");
  EXPECT_EQ(shown("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), "????????A");
  EXPECT_EQ(shown("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), "?????A??B");
  EXPECT_EQ(shown("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "????A");
}

}  // namespace
}  // namespace mdm
