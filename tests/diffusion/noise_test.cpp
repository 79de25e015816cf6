// The noise of an image or sample is its own.
#include "mdm/diffusion/noise.h"

#include <set>

#include "mdm/core/random.h"
#include "test_model.h"

namespace mdm {
namespace {

using testing::expect_error;

TEST(SeededNoise, IsTheSameWhateverTheBatch) {
  SeededNoise all({7, 8, 9});
  for (size_t i = 0; i < 3; ++i) {
    SeededNoise one({7 + i});
    const auto row = static_cast<int64_t>(i);
    EXPECT_TRUE(one.start(1, {1, 3, 4, 4}).equal(all.start(1, {3, 3, 4, 4}).narrow(0, row, 1)));
    EXPECT_TRUE(one.step(5, 1, {1, 3, 4, 4}).equal(all.step(5, 1, {3, 3, 4, 4}).narrow(0, row, 1)));
  }
}

TEST(SeededNoise, HasTheDocumentedAddress) {
  std::vector<float> expected(48);
  RandomAddress address;
  address.seed = 1234567890123ull;
  address.layer = 2;
  random_normal(address, 0, expected.data(), expected.size());
  SeededNoise noise({address.seed});
  EXPECT_TRUE(noise.start(2, {1, 3, 4, 4}).flatten().equal(at::tensor(expected)));
  address.stream = RandomStream::kStep;
  address.step = 6;
  random_normal(address, 0, expected.data(), expected.size());
  EXPECT_TRUE(noise.step(6, 2, {1, 3, 4, 4}).flatten().equal(at::tensor(expected)));
}

TEST(SeededNoise, DiffersBetweenSeedsLevelsStepsAndStreams) {
  SeededNoise noise({1}), other({2});
  const std::vector<at::Tensor> all = {noise.start(0, {1, 1, 2, 2}),   noise.start(1, {1, 1, 2, 2}),
                                       noise.step(0, 0, {1, 1, 2, 2}), noise.step(1, 0, {1, 1, 2, 2}),
                                       noise.step(0, 1, {1, 1, 2, 2}), other.start(0, {1, 1, 2, 2})};
  std::set<float> first;
  for (const at::Tensor& t : all) first.insert(t.flatten()[0].item<float>());
  EXPECT_EQ(first.size(), all.size());
}

TEST(SeededNoise, IsNormal) {
  SeededNoise noise({3});
  const at::Tensor x = noise.start(0, {1, 3, 128, 128});
  EXPECT_NEAR(x.mean().item<double>(), 0, 0.02);
  EXPECT_NEAR(x.std().item<double>(), 1, 0.02);
}

TEST(SeededNoise, NeedsASeedForEachImage) {
  SeededNoise noise({1, 2});
  expect_error<Error>([&] { noise.start(0, {3, 3, 4, 4}); }, "there are 2 seeds for a batch of 3 images");
  expect_error<Error>([&] { noise.step(0, 0, {1, 3, 4, 4}); }, "there are 2 seeds for a batch of 1 images");
}

TEST(GeneratorNoise, DrawsInTheOrderInWhichItIsAsked) {
  GeneratorNoise noise(make_generator(42));
  const at::Generator generator = make_generator(42);
  const at::Tensor a = at::randn({2, 3, 4, 4}, generator, at::TensorOptions());
  const at::Tensor b = at::randn({2, 3, 2, 2}, generator, at::TensorOptions());
  EXPECT_TRUE(noise.start(0, {2, 3, 4, 4}).equal(a));
  EXPECT_TRUE(noise.step(9, 1, {2, 3, 2, 2}).equal(b));
}

TEST(TrainingDraw, BelongsToTheSampleAndNotToTheBatch) {
  const TrainingDraw draw{11, 0, 5};
  const at::Tensor times = draw_times(draw, {100, 200, 300}, 1000);
  const at::Tensor noise = draw_noise(draw, {100, 200, 300}, 1, {3, 4, 4});
  EXPECT_TRUE(draw_times(draw, {200}, 1000).equal(times.narrow(0, 1, 1)));
  EXPECT_TRUE(draw_noise(draw, {300, 200}, 1, {3, 4, 4}).equal(noise.index_select(0, at::tensor({2, 1}))));
  EXPECT_FALSE(draw_noise({11, 1, 5}, {100}, 1, {3, 4, 4}).equal(noise.narrow(0, 0, 1)));
  EXPECT_FALSE(draw_noise({11, 0, 6}, {100}, 1, {3, 4, 4}).equal(noise.narrow(0, 0, 1)));
  EXPECT_FALSE(draw_noise(draw, {100}, 0, {3, 4, 4}).equal(noise.narrow(0, 0, 1)));
}

TEST(TrainingDraw, TimesCoverTheSchedule) {
  std::vector<uint64_t> samples(4000);
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = i;
  const at::Tensor times = draw_times({1, 0, 0}, samples, 10);
  EXPECT_EQ(times.scalar_type(), at::kLong);
  const at::Tensor counts = at::bincount(times, {}, 10);
  EXPECT_EQ(counts.size(0), 10);  // none above 9
  EXPECT_GT(counts.min().item<int64_t>(), 320);
  EXPECT_LT(counts.max().item<int64_t>(), 480);
}

}  // namespace
}  // namespace mdm
