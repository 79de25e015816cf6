// Animations, taken apart again.
#include "mdm/media/animation.h"

#include <gtest/gtest.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <cmath>
#include <filesystem>
#include <memory>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "media/png_chunks.h"
#include "media/test_images.h"

namespace mdm {
namespace {

using Format = AnimationOptions::Format;

std::vector<Image> frames_of(int count, int channels = 3) {
  std::vector<Image> frames;
  for (int i = 0; i < count; ++i) frames.push_back(test::noise(20, 12, channels, static_cast<uint64_t>(i) + 1));
  return frames;
}

std::string encoded(const std::vector<Image>& frames, const AnimationOptions& options) {
  AnimationEncoder encoder(options);
  for (const Image& frame : frames) encoder.add(frame);
  EXPECT_EQ(encoder.frames(), frames.size());
  return encoder.finish();
}

uint32_t be32(std::string_view data, size_t at) {
  return detail::read_be32(reinterpret_cast<const uint8_t*>(&data[at]));
}

struct ApngFrame {
  uint32_t delay_ms = 0;
  std::string pixels;
};

// Takes an APNG apart by the specification: sequence numbers without gaps, a control before each frame.
std::vector<ApngFrame> take_apart(const std::string& apng, uint32_t& loops) {
  std::vector<ApngFrame> frames;
  uint32_t announced = 0;
  uint32_t sequence = 0;
  const detail::ImageBytes bytes{reinterpret_cast<const uint8_t*>(apng.data()), apng.size(), "apng"};
  const auto all = [](std::string_view) { return true; };
  detail::walk_png_chunks(bytes, all, [&](std::string_view type, std::string_view data) {
    if (type == "acTL") {
      EXPECT_TRUE(frames.empty());
      announced = be32(data, 0);
      loops = be32(data, 4);
    } else if (type == "fcTL") {
      EXPECT_EQ(data.size(), 26u);
      EXPECT_EQ(be32(data, 0), sequence++);
      EXPECT_EQ(be32(data, 4), 20u);
      EXPECT_EQ(be32(data, 8), 12u);
      EXPECT_EQ(be32(data, 20) & 0xFFFF, 1000u);
      frames.push_back({be32(data, 20) >> 16, {}});
    } else if (type == "IDAT") {
      EXPECT_EQ(frames.size(), 1u);
      frames.back().pixels += data;
    } else if (type == "fdAT") {
      EXPECT_GT(frames.size(), 1u);
      EXPECT_EQ(be32(data, 0), sequence++);
      frames.back().pixels += data.substr(4);
    }
  });
  EXPECT_EQ(announced, frames.size());
  return frames;
}

TEST(Apng, EveryFrameComesBack) {
  static constexpr int kColours[] = {0, 0, 4, 2, 6};
  for (int channels = 1; channels <= 4; ++channels) {
    for (const int count : {1, 2, 5}) {
      const auto frames = frames_of(count, channels);
      AnimationOptions options;
      options.delay_ms = 70;
      options.last_delay_ms = 900;
      options.loop = 3;
      const std::string apng = encoded(frames, options);
      uint32_t loops = 0;
      const auto parts = take_apart(apng, loops);
      ASSERT_EQ(parts.size(), frames.size());
      EXPECT_EQ(loops, 3u);
      for (size_t i = 0; i < parts.size(); ++i) {
        EXPECT_EQ(parts[i].delay_ms, i + 1 == parts.size() ? 900u : 70u);
        const std::string still =
            test::png_with_chunks(20, 12, 8, kColours[channels], test::png_chunk("IDAT", parts[i].pixels));
        EXPECT_EQ(test::largest_difference(test::decode(still), frames[i]), 0);
      }
      // Programs without animations show the first frame.
      EXPECT_EQ(test::largest_difference(test::decode(apng), frames[0]), 0);
    }
  }
}

TEST(WebpAnimation, EveryFrameComesBack) {
  for (const int channels : {1, 3, 4}) {
    const auto frames = frames_of(4, channels);
    AnimationOptions options;
    options.format = Format::kWebp;
    options.delay_ms = 70;
    options.last_delay_ms = 900;
    options.loop = 3;
    options.webp_quality = 101;
    const std::string webp = encoded(frames, options);
    const WebPData data = {reinterpret_cast<const uint8_t*>(webp.data()), webp.size()};
    WebPAnimDecoderOptions settings;
    ASSERT_NE(WebPAnimDecoderOptionsInit(&settings), 0);
    const std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(WebPAnimDecoderNew(&data, &settings),
                                                                               WebPAnimDecoderDelete);
    ASSERT_NE(decoder, nullptr);
    WebPAnimInfo info;
    ASSERT_NE(WebPAnimDecoderGetInfo(decoder.get(), &info), 0);
    EXPECT_EQ(info.frame_count, 4u);
    EXPECT_EQ(info.loop_count, 3u);
    for (size_t i = 0; i < frames.size(); ++i) {
      uint8_t* pixels = nullptr;
      int time = 0;
      ASSERT_NE(WebPAnimDecoderGetNext(decoder.get(), &pixels, &time), 0);
      EXPECT_EQ(time, i == 3 ? 3 * 70 + 900 : 70 * static_cast<int>(i + 1));
      if (channels == 4) continue;  // blending on the canvas is not what this looks at
      Image shown(20, 12, 4);
      std::copy_n(pixels, shown.pixels.size(), shown.pixels.begin());
      EXPECT_EQ(test::largest_difference(to_rgb(shown, AlphaRule::kDrop), to_rgb(frames[i], AlphaRule::kDrop)), 0);
    }
  }
}

TEST(WebpAnimation, IsSmallerWithLoss) {
  std::vector<Image> frames;
  for (int i = 0; i < 4; ++i) frames.push_back(test::gradient(100 + 0 * i, 80, 3));
  frames[1] = test::noise(100, 80, 3);
  AnimationOptions options;
  options.format = Format::kWebp;
  options.webp_quality = 50;
  const size_t small = encoded(frames, options).size();
  options.webp_quality = 101;
  EXPECT_LT(small * 2, encoded(frames, options).size());
}

TEST(Animation, WrongUseIsAnError) {
  for (const auto format : {Format::kApng, Format::kWebp}) {
    AnimationOptions options;
    options.format = format;
    AnimationEncoder encoder(options);
    EXPECT_THROW(encoder.finish(), Error);
    encoder.add(Image(8, 8, 3));
    EXPECT_THROW(encoder.add(Image(8, 9, 3)), Error);
    EXPECT_THROW(encoder.add(Image(8, 8, 4)), Error);
    EXPECT_THROW(encoder.add(Image()), Error);
    EXPECT_FALSE(encoder.finish().empty());
    EXPECT_THROW(encoder.add(Image(8, 8, 3)), Error);
    EXPECT_THROW(encoder.finish(), Error);
  }
  AnimationOptions webp;
  webp.format = Format::kWebp;
  AnimationEncoder wide(webp);
  EXPECT_THROW(wide.add(Image(16384, 1, 3)), Error);
  for (const auto change : {+[](AnimationOptions& o) { o.delay_ms = 0; }, +[](AnimationOptions& o) { o.loop = -1; },
                            +[](AnimationOptions& o) { o.delay_ms = 60001; },
                            +[](AnimationOptions& o) { o.webp_quality = std::nanf(""); }}) {
    AnimationOptions options;
    change(options);
    EXPECT_THROW(AnimationEncoder encoder(options), ConfigError);
  }
}

TEST(Animation, Files) {
  const auto path = std::filesystem::temp_directory_path() / concat("mdm_animation_test_", ::getpid(), ".png");
  const auto frames = frames_of(3);
  write_animation(path, frames, {});
  EXPECT_EQ(FileBytes::open(path)->view(), encoded(frames, {}));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace mdm
