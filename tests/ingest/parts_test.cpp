// Small parts of `scrape`: the set of hashes, pictures that are looked at, and the verdict on the network.
#include <gtest/gtest.h>

#include "ingest/hash_set.h"
#include "ingest/lost_network.h"
#include "ingest/picture.h"
#include "ingest/support.h"
#include "mdm/core/digest.h"
#include "mdm/media/decode.h"
#include "mdm/media/png.h"
#include "mdm/media/resize.h"
#include "support/pictures.h"

namespace mdm::ingest {
namespace {

using ingest_test::jpeg;

TEST(HashSet, KnowsWhatItHasSeen) {
  HashSet set;
  for (uint64_t i = 0; i < 100000; ++i) EXPECT_TRUE(set.insert(i * 0x9E3779B97F4A7C15u + 5));
  for (uint64_t i = 0; i < 100000; ++i) EXPECT_FALSE(set.insert(i * 0x9E3779B97F4A7C15u + 5));
  EXPECT_TRUE(set.insert(0));
  EXPECT_FALSE(set.insert(0));
  EXPECT_EQ(set.size(), 100001u);
}

Failure failure_of(const std::string& file, const ScrapeSettings& settings = {}) {
  Picture picture;
  Failure failure;
  EXPECT_FALSE(check_picture(file, settings, picture, failure));
  return failure;
}

Picture kept(const std::string& file, const ScrapeSettings& settings = {}) {
  Picture picture;
  Failure failure;
  EXPECT_TRUE(check_picture(file, settings, picture, failure)) << failure.detail;
  return picture;
}

TEST(CheckPicture, KeepsFilesAsTheyAre) {
  const std::string file = jpeg(5);
  const Picture picture = kept(file);
  EXPECT_EQ(picture.bytes, file);
  EXPECT_STREQ(picture.ending, "jpg");
  EXPECT_EQ(picture.width, 48);
  EXPECT_EQ(picture.height, 32);
  EXPECT_EQ(picture.sha256, sha256_hex(file));
  EXPECT_STREQ(kept(encode_png(Image(5, 4, 3, 9))).ending, "png");
}

TEST(CheckPicture, SaysWhatIsWrong) {
  EXPECT_EQ(failure_of("").cause, "empty");
  EXPECT_EQ(failure_of("<html>").cause, "not_an_image");
  EXPECT_EQ(failure_of("GIF89a\x01\x01").cause, "not_an_image");
  const std::string file = jpeg(1, 200, 150);
  EXPECT_EQ(failure_of(file.substr(0, file.size() / 2)).cause, "broken_image");
  EXPECT_EQ(failure_of(file.substr(0, file.size() / 2) + "\xFF\xD9").cause, "broken_image");
  ScrapeSettings settings;
  settings.min_side = 33;
  EXPECT_EQ(failure_of(jpeg(1), settings).cause, "too_small");
  settings.max_pixels = 100;
  EXPECT_EQ(failure_of(jpeg(1), settings).cause, "too_many_pixels");
  settings.max_pixels = uint64_t{1} << 25;
  settings.min_side = 1;
  EXPECT_EQ(kept(jpeg(1, 3000, 1500)).width, 3000);  // above what is decoded side by side
}

TEST(CheckPicture, ResizesOnlyWhatIsLarger) {
  ScrapeSettings settings;
  settings.resize_side = 32;
  EXPECT_EQ(kept(jpeg(3), settings).bytes, jpeg(3));
  Image slope(300, 200, 3);
  for (int y = 0; y < 200; ++y) {
    for (int x = 0; x < 300; ++x) {
      uint8_t* pixel = slope.row(y) + 3 * x;
      pixel[0] = static_cast<uint8_t>(x * 255 / 300);
      pixel[1] = static_cast<uint8_t>(y * 255 / 200);
      pixel[2] = static_cast<uint8_t>((x + y) * 255 / 500);
    }
  }
  const std::string file = encode_jpeg(slope, 95);
  const Picture small = kept(file, settings);
  EXPECT_EQ(small.width, 48);
  EXPECT_EQ(small.height, 32);
  EXPECT_EQ(small.original_width, 300);
  EXPECT_EQ(small.sha256, sha256_hex(file));
  EXPECT_EQ(small.file_sha256, sha256_hex(small.bytes));
  const auto* bytes = reinterpret_cast<const uint8_t*>(file.data());
  const Image wanted = resize_clamped(decode_image(bytes, file.size(), "file"), 48, 32);
  const Image got = decode_image(reinterpret_cast<const uint8_t*>(small.bytes.data()), small.bytes.size(), "small");
  EXPECT_GT(test_support::psnr(got, wanted), 38);
  const Picture of_png = kept(encode_png(Image(64, 64, 4, 200)), settings);  // alpha goes over white
  EXPECT_STREQ(of_png.ending, "jpg");
  EXPECT_EQ(of_png.width, 32);
}

LostNetwork with_suspects(int64_t after, int count, int hosts) {
  LostNetwork network(after);
  for (int i = 0; i < count; ++i) network.suspect({}, {"timeout", ""}, "host" + std::to_string(i % hosts));
  return network;
}

TEST(LostNetwork, ManyFailuresOfSeveralHostsMeanThatItIsLost) {
  EXPECT_EQ(with_suspects(100, 99, 50).verdict(), LostNetwork::Verdict::kOpen);
  EXPECT_EQ(with_suspects(100, 100, 50).verdict(), LostNetwork::Verdict::kLost);
  EXPECT_EQ(with_suspects(100, 100, 1).verdict(), LostNetwork::Verdict::kLost);  // the only one there is
  EXPECT_EQ(with_suspects(0, 1000, 50).verdict(), LostNetwork::Verdict::kHostsAreDead);
}

TEST(LostNetwork, OneDeadHostAmongOthersIsItsOwnFault) {
  LostNetwork network(100);
  EXPECT_TRUE(network.alive("good").empty());
  for (int i = 0; i < 100; ++i) network.suspect({}, {"connection", ""}, "dead");
  EXPECT_EQ(network.verdict(), LostNetwork::Verdict::kHostsAreDead);
  EXPECT_EQ(network.take().size(), 100u);
  for (int i = 0; i < 100; ++i) network.suspect({}, {"connection", ""}, "good");  // the one that answered is gone
  EXPECT_EQ(network.verdict(), LostNetwork::Verdict::kLost);
  EXPECT_EQ(network.alive("good").size(), 100u);
  EXPECT_EQ(network.verdict(), LostNetwork::Verdict::kOpen);
}

TEST(LostNetwork, AnswersThatWereOnTheirWayProveNothing) {
  LostNetwork network(100, /*settled_by=*/3);
  network.suspect({}, {"timeout", ""}, "a");
  EXPECT_TRUE(network.alive("a").empty());
  network.suspect({}, {"timeout", ""}, "a");
  EXPECT_TRUE(network.alive("a").empty());
  EXPECT_EQ(network.alive("a").size(), 1u);
  EXPECT_EQ(network.suspects(), 1u);
  EXPECT_EQ(network.alive("a").size(), 1u);
  for (int i = 0; i < 100; ++i) network.suspect({}, {"timeout", ""}, "a");
  EXPECT_EQ(network.verdict(), LostNetwork::Verdict::kLost);
  EXPECT_EQ(network.take().size(), 100u);
}

}  // namespace
}  // namespace mdm::ingest
