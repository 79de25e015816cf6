// Dropout masks belong to the sample, not to the batch.
#include "mdm/ops/dropout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "mdm/core/error.h"

namespace mdm::ops {
namespace {

TEST(Dropout, MaskBelongsToTheSample) {
  const at::Tensor x = at::ones({3, 4, 16, 16});
  DropoutSource source;
  source.address.seed = 5;
  source.samples = {10, 11, 12};
  const at::Tensor all = dropout(x, 0.25, source, 7);
  source.samples = {11};
  const at::Tensor one = dropout(x.narrow(0, 0, 1), 0.25, source, 7);
  EXPECT_TRUE(all[1].equal(one[0]));
  EXPECT_FALSE(all[0].equal(all[1]));
  EXPECT_FALSE(dropout(x.narrow(0, 0, 1), 0.25, source, 8).equal(one));
}

TEST(Dropout, KeepsTheExpectedShareAndTheMean) {
  DropoutSource source;
  source.samples = {0};
  const at::Tensor y = dropout(at::ones({1, 1000, 1000}), 0.1, source, 0);
  EXPECT_NEAR((y == 0).to(at::kDouble).mean().item<double>(), 0.1, 0.002);  // 6 standard deviations
  EXPECT_NEAR(y.to(at::kDouble).mean().item<double>(), 1.0, 0.003);
}

TEST(Dropout, RefusesABatchThatIsNoMultipleOfTheSamples) {
  DropoutSource source;
  source.samples = {0, 1};
  EXPECT_THROW(dropout(at::ones({3, 2}), 0.1, source, 0), Error);
  source.samples.clear();
  EXPECT_THROW(dropout(at::ones({3, 2}), 0.1, source, 0), Error);
}

}  // namespace
}  // namespace mdm::ops
