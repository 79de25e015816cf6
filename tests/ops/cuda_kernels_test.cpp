// The CUDA kernels' arithmetic and launch shapes, run on the CPU by an emulation, against the CPU kernels. With a
// GPU device_test.cpp compares the operations themselves.
#include "support/cuda_emulation.h"

#include "ops/group_norm_cuda.cu"

#include <gtest/gtest.h>

#include <random>

#include "ops/vector_math.h"

namespace mdm::ops {
namespace {

class Numbers {
 public:
  std::vector<float> normal(int64_t count, float mean = 0) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& v : out) v = mean + std::normal_distribution<float>()(random_);
    return out;
  }

 private:
  std::mt19937 random_{1};
};

std::vector<uint16_t> rounded(const std::vector<float>& values) {
  std::vector<uint16_t> out;
  for (const float v : values) out.push_back(__float2bfloat16_rn(v).bits);
  return out;
}

double value_of(float v) { return v; }
double value_of(double v) { return v; }
double value_of(uint16_t v) { return __bfloat162float({v}); }

template <typename T>
void expect_close(const std::vector<T>& actual, const std::vector<T>& expected, double tolerance, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  double error = 0, largest = 1e-3;
  for (size_t i = 0; i < actual.size(); ++i) {
    error = std::max(error, std::fabs(value_of(actual[i]) - value_of(expected[i])));
    largest = std::max(largest, std::fabs(value_of(expected[i])));
  }
  EXPECT_LE(error, tolerance * largest) << what;
}

struct NormShape {
  int64_t batch, positions, channels, groups;
};

struct Gradients {
  std::vector<float> weight, bias, scale, shift;
  Gradients(const NormShape& s, bool modulated)
      : weight(static_cast<size_t>(s.channels)),
        bias(weight),
        scale(static_cast<size_t>(modulated ? s.batch * s.channels : 0)),
        shift(scale) {}
  GroupNormGradients pointers() {
    return {weight.data(), bias.data(), scale.empty() ? nullptr : scale.data(), shift.empty() ? nullptr : shift.data()};
  }
};

void forward(const GroupNormArguments& a, const std::vector<float>& x, std::vector<float>& y, double* statistics) {
  group_norm_channels_last(a, {x.data(), nullptr, a.channels}, y.data(), statistics);
}
void forward(const GroupNormArguments& a, const std::vector<uint16_t>& x, std::vector<uint16_t>& y,
             double* statistics) {
  group_norm_channels_last_bf16(a, {x.data(), nullptr, a.channels}, y.data(), statistics);
}
void backward(const GroupNormArguments& a, const double* statistics, const std::vector<float>& x,
              const std::vector<float>& dy, std::vector<float>& dx, Gradients& gradients) {
  group_norm_backward_channels_last(a, statistics, x.data(), dy.data(), dx.data(), gradients.pointers());
}
void backward(const GroupNormArguments& a, const double* statistics, const std::vector<uint16_t>& x,
              const std::vector<uint16_t>& dy, std::vector<uint16_t>& dx, Gradients& gradients) {
  group_norm_backward_channels_last_bf16(a, statistics, x.data(), dy.data(), dx.data(), gradients.pointers());
}

template <typename T>
void compare(const GroupNormArguments& a, const NormShape& s, const std::vector<T>& x, const std::vector<T>& dy) {
  constexpr bool kRounded = sizeof(T) == 2;
  const GroupNormType type = kRounded ? GroupNormType::kBFloat16 : GroupNormType::kFloat;
  std::vector<float> work(static_cast<size_t>(group_norm_cuda_workspace(a, type)), NAN);
  std::vector<double> statistics(static_cast<size_t>(2 * s.batch * s.groups)), expected_statistics(statistics);
  std::vector<T> y(x.size()), expected_y(y), dx(y), expected_dx(y);
  Gradients gradients(s, a.scale != nullptr), expected(s, a.scale != nullptr);
  group_norm_cuda(a, type, x.data(), y.data(), statistics.data(), work.data(), nullptr);
  forward(a, x, expected_y, expected_statistics.data());
  expect_close(y, expected_y, kRounded ? 8e-3 : 1e-5, "y");
  expect_close(statistics, expected_statistics, 5e-6, "statistics");  // a chunk's sums are float32
  std::fill(work.begin(), work.end(), NAN);
  group_norm_backward_cuda(a, type, statistics.data(), x.data(), dy.data(), dx.data(), gradients.pointers(),
                           work.data(), nullptr);
  backward(a, expected_statistics.data(), x, dy, expected_dx, expected);
  expect_close(dx, expected_dx, kRounded ? 8e-3 : 4e-5, "dx");
  expect_close(gradients.weight, expected.weight, 4e-5, "weight");
  expect_close(gradients.bias, expected.bias, 4e-5, "bias");
  expect_close(gradients.scale, expected.scale, 4e-5, "scale");
  expect_close(gradients.shift, expected.shift, 4e-5, "shift");
}

TEST(CudaKernels, GroupNormEqualsTheCpuKernel) {
  Numbers numbers;
  for (const NormShape& s : {NormShape{2, 37, 32, 4},
                             {1, 5, 24, 8},
                             {2, 9, 7, 7},
                             {1, 300, 64, 32},
                             {2, 17, 2100, 3},
                             {1, 1, 8, 2},
                             {3, 40, 12, 1}}) {
    const int64_t count = s.batch * s.positions * s.channels;
    const auto weight = numbers.normal(s.channels), bias = numbers.normal(s.channels);
    const auto scale = numbers.normal(s.batch * s.channels), shift = numbers.normal(s.batch * s.channels);
    const auto x = numbers.normal(count, 3), dy = numbers.normal(count);
    for (const bool silu : {false, true}) {
      for (const bool modulated : {false, true}) {
        SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.positions << " x " << s.channels << " in "
                                          << s.groups << " groups, silu " << silu << " modulated " << modulated);
        GroupNormArguments a;
        a.batch = s.batch;
        a.positions = s.positions;
        a.channels = s.channels;
        a.groups = s.groups;
        a.epsilon = 1e-5;
        a.weight = weight.data();
        a.bias = bias.data();
        a.scale = modulated ? scale.data() : nullptr;
        a.shift = modulated ? shift.data() : nullptr;
        a.silu = silu;
        compare(a, s, x, dy);
        compare(a, s, rounded(x), rounded(dy));
      }
    }
  }
}

TEST(CudaKernels, GroupNormLaunchesCoverEveryPositionOnce) {
  for (const int64_t channels : {1, 7, 8, 32, 96, 256, 768, 1536, 2304, 3072, 4096}) {
    for (const int64_t positions : {1, 5, 64, 255, 1024, 65536, 1048576}) {
      for (const int64_t most : {4, 8}) {
        const GroupNormLaunch launch(positions, channels, most);
        EXPECT_EQ(launch.lanes * launch.vector, channels);
        EXPECT_GE(launch.lane_blocks * launch.lanes_of_block, launch.lanes);
        EXPECT_LT((launch.lane_blocks - 1) * launch.lanes_of_block, launch.lanes);
        EXPECT_GE(launch.chunks * launch.chunk, positions);
        EXPECT_LT((launch.chunks - 1) * launch.chunk, positions);
        EXPECT_LE(launch.threads(), GroupNormLaunch::kThreads);
        EXPECT_LE(launch.shared_bytes(), 48 * 1024);
        EXPECT_LE(launch.chunks, 65535);
      }
    }
  }
}

TEST(CudaEmulation, SeesABarrierThatNotAllThreadsReach) {
  const auto lopsided = [] {
    if (threadIdx.x == 0) __syncthreads();
  };
  EXPECT_THROW(MDM_LAUNCH(lopsided, 1U, 2U, 0, nullptr), std::logic_error);
  EXPECT_THROW(MDM_LAUNCH(lopsided, 1U, 2048U, 0, nullptr), std::logic_error);
}

}  // namespace
}  // namespace mdm::ops
