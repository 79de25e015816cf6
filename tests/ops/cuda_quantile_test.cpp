// The CUDA kernels of radix selection, run on the CPU by an emulation, against sorting.
#include "support/cuda_emulation.h"

#include "ops/quantile_cuda.cu"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace mdm::ops {
namespace {

std::vector<float> quantiles(const std::vector<float>& x, int64_t batch, float q) {
  const int64_t count = static_cast<int64_t>(x.size()) / batch;
  std::vector<uint32_t> work(static_cast<size_t>(abs_quantile_cuda_workspace(batch)), 0xabababab);
  std::vector<float> out(static_cast<size_t>(batch), -1);
  abs_quantile_cuda(x.data(), batch, count, QuantileRank(q, count), out.data(), work.data(), nullptr);
  return out;
}

// By its definition.
float expected(const float* row, int64_t count, float q) {
  std::vector<float> sorted(row, row + count);
  for (float& v : sorted) v = std::fabs(v);
  for (const float v : sorted) {
    if (std::isnan(v)) return v;
  }
  std::sort(sorted.begin(), sorted.end());
  const QuantileRank rank(q, count);
  const float low = sorted[static_cast<size_t>(rank.below)];
  const float high = rank.below + 1 < count ? sorted[static_cast<size_t>(rank.below) + 1] : low;
  return low + rank.weight * (high - low);
}

void compare(const std::vector<float>& x, int64_t batch, float q) {
  const std::vector<float> actual = quantiles(x, batch, q);
  const int64_t count = static_cast<int64_t>(x.size()) / batch;
  for (int64_t i = 0; i < batch; ++i) {
    const float wanted = expected(x.data() + i * count, count, q);
    if (std::isnan(wanted)) {
      EXPECT_TRUE(std::isnan(actual[static_cast<size_t>(i)]));
    } else {
      EXPECT_EQ(actual[static_cast<size_t>(i)], wanted) << "row " << i << " of " << count << ", q " << q;
    }
  }
}

TEST(CudaQuantile, EqualsSorting) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const int64_t count : {1, 2, 3, 257, 3072, 16385}) {
    for (const int64_t batch : {1, 3}) {
      std::vector<float> x(static_cast<size_t>(batch * count));
      for (float& v : x) v = normal(random);
      for (const float q : {0.0F, 0.5F, 0.995F, 1.0F}) compare(x, batch, q);
    }
  }
}

TEST(CudaQuantile, SeesEqualExtremeAndBrokenNumbers) {
  const float infinite = std::numeric_limits<float>::infinity();
  std::mt19937 random(6);
  std::vector<float> few(999), extreme(1000), broken(300, 1);
  for (float& v : few) v = static_cast<float>(static_cast<int>(random() % 3)) - 1;
  for (float& v : extreme) v = std::ldexp(1.0F, static_cast<int>(random() % 250) - 140);  // denormal ones too
  extreme[7] = -infinite;
  broken[50] = infinite;
  broken[150] = std::numeric_limits<float>::quiet_NaN();  // in the second row of three
  for (const float q : {0.0F, 0.3F, 0.5F, 0.995F}) {
    compare(few, 1, q);
    compare(few, 3, q);
    compare(extreme, 1, q);
    compare(broken, 3, q);
  }
  EXPECT_EQ(quantiles(std::vector<float>(500, 0), 1, 0.995F)[0], 0);
}

}  // namespace
}  // namespace mdm::ops
