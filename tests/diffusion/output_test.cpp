// Levels of images, and bytes.
#include "mdm/diffusion/output.h"

#include "test_model.h"

namespace mdm {
namespace {

using testing::expect_error;
using testing::largest_difference;
using testing::random_tensor;

TEST(LevelImages, ArePooled) {
  const at::Tensor x = random_tensor({2, 3, 8, 16});
  const auto levels = level_images(x, {4, 2, 1});
  ASSERT_EQ(levels.size(), 3u);
  EXPECT_TRUE(levels[0].equal(x));
  EXPECT_EQ(levels[1].sizes(), at::IntArrayRef({2, 3, 4, 8}));
  EXPECT_LT(largest_difference(levels[2], x.reshape({2, 3, 2, 4, 4, 4}).mean({3, 5})), 1e-6);
  expect_error<Error>([&] { level_images(x.narrow(2, 0, 6), {4, 1}); }, "must be multiples of 4");
}

TEST(LevelImages, InTimeKeepFrames) {
  // 4 x 4 frames of 2 x 2 pixels that hold their own number.
  const at::Tensor numbers = at::arange(16, at::kFloat).view({1, 1, 4, 4});
  const at::Tensor x = numbers.repeat_interleave(2, 2).repeat_interleave(2, 3);
  const auto levels = level_images(x, {4, 2, 1}, {true, true, false});
  const at::Tensor kept = at::tensor({0.f, 4.f, 8.f, 12.f}).view({1, 1, 2, 2});
  EXPECT_TRUE(levels[1].equal(kept.repeat_interleave(2, 2).repeat_interleave(2, 3)));
  EXPECT_TRUE(levels[2].equal(at::zeros({1, 1, 2, 2})));
}

TEST(Images, AreScaledBackAndClipped) {
  SamplerConfig config;
  const Schedule schedule(config, {2, 1});
  const std::vector<at::Tensor> levels = {random_tensor({1, 3, 4, 4}), random_tensor({1, 3, 2, 2})};
  EXPECT_TRUE(to_images(levels, schedule, false)[0].equal(levels[0] * 2));
  EXPECT_TRUE(to_images(levels, schedule, true)[0].equal((levels[0] * 2).clamp(-1, 1)));
  EXPECT_TRUE(to_images(levels, schedule, false)[1].equal(levels[1]));
}

TEST(Images, JoinLowestFirst) {
  const at::Tensor high = random_tensor({2, 3, 8, 8}), low = at::full({2, 3, 4, 4}, 0.25);
  const at::Tensor joined = join_levels({high, low});
  EXPECT_EQ(joined.sizes(), at::IntArrayRef({2, 3, 8, 16}));
  EXPECT_TRUE(joined.narrow(3, 0, 8).equal(at::full({2, 3, 8, 8}, 0.25)));
  EXPECT_TRUE(joined.narrow(3, 8, 8).equal(high));
  EXPECT_TRUE(join_levels({high}).equal(high));
}

TEST(Bytes, AreTheInverseOfReadingPixels) {
  const at::Tensor pixels = at::arange(256, at::kInt).view({1, 1, 16, 16});
  const at::Tensor read = (pixels.to(at::kFloat) - 127) / 128;
  const at::Tensor bytes = to_bytes(read);
  EXPECT_EQ(bytes.scalar_type(), at::kByte);
  EXPECT_EQ(bytes.sizes(), at::IntArrayRef({1, 16, 16, 1}));
  EXPECT_TRUE(bytes.view({1, 1, 16, 16}).to(at::kInt).equal(pixels));
}

TEST(Bytes, RoundUnlessTheReferenceIsWanted) {
  const at::Tensor x = (at::tensor({10.6f, -5.f, 300.f}).view({1, 3, 1, 1}) - 127) / 128;
  EXPECT_TRUE(to_bytes(x).flatten().equal(at::tensor({11, 0, 255}, at::kByte)));
  Compat compat;
  compat.truncated_pixels = true;
  EXPECT_TRUE(to_bytes(x, compat).flatten().equal(at::tensor({10, 0, 255}, at::kByte)));
}

}  // namespace
}  // namespace mdm
