// The fused group_norm against its definition, computed in float64.
#include "mdm/ops/normalization.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace mdm::ops {
namespace {

struct NormShape {
  int64_t batch, channels, height, width, groups;
};

class GroupNormTest : public ::testing::TestWithParam<NormShape> {};

at::Tensor channels_last(const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

// Largest error against float64, relative to the largest element.
double error_of(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

TEST_P(GroupNormTest, FusedEqualsTheComposition) {
  const NormShape s = GetParam();
  at::Generator generator = at::detail::createCPUGenerator(7);
  // A mean that is large against the deviation costs a careless kernel its digits.
  for (const double mean : {0.0, 30.0}) {
    const at::Tensor x = at::randn({s.batch, s.channels, s.height, s.width}, generator, at::kDouble) + mean;
    const at::Tensor weight = at::randn({s.channels}, generator, at::kFloat);
    const at::Tensor bias = at::randn({s.channels}, generator, at::kFloat);
    const at::Tensor scale = at::randn({s.batch, s.channels}, generator, at::kFloat);
    const at::Tensor shift = at::randn({s.batch, s.channels}, generator, at::kFloat);
    for (const bool silu : {false, true}) {
      for (const bool modulated : {false, true}) {
        for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 4e-6}, std::pair{at::kBFloat16, 6e-3}}) {
          const at::Tensor input = channels_last(x.to(dtype));
          const at::Tensor none;
          const at::Tensor expected = group_norm_composition(
              input.to(at::kDouble), s.groups, weight.to(at::kDouble), bias.to(at::kDouble),
              modulated ? scale.to(at::kDouble) : none, modulated ? shift.to(at::kDouble) : none, silu);
          const at::Tensor actual =
              group_norm(input, s.groups, weight, bias, modulated ? scale : none, modulated ? shift : none, silu);
          EXPECT_EQ(actual.scalar_type(), dtype);
          EXPECT_TRUE(actual.is_contiguous(at::MemoryFormat::ChannelsLast));
          EXPECT_LT(error_of(actual, expected), tolerance) << dtype << " silu " << silu << " modulated " << modulated;
        }
      }
    }
  }
}

TEST_P(GroupNormTest, FusedGradientsEqualThoseOfTheComposition) {
  const NormShape s = GetParam();
  at::Generator generator = at::detail::createCPUGenerator(11);
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, generator, at::kDouble); };
  for (const double mean : {0.0, 30.0}) {
    const at::Tensor x = random({s.batch, s.channels, s.height, s.width}) + mean;
    const at::Tensor direction = random(x.sizes());
    const std::vector<at::Tensor> parameters = {random({s.channels}), random({s.channels}),
                                                random({s.batch, s.channels}), random({s.batch, s.channels})};
    for (const bool silu : {false, true}) {
      for (const bool modulated : {false, true}) {
        for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 2e-5}, std::pair{at::kBFloat16, 2e-2}}) {
          // Inputs rounded to the type, so that only the kernel's own errors are seen; the oracle is in float64.
          const auto gradients = [&](bool fused, at::ScalarType type, at::ScalarType parameter_type) {
            std::vector<at::Tensor> inputs = {channels_last(x.to(dtype).to(type))};
            for (const at::Tensor& p : parameters) inputs.push_back(p.to(at::kFloat).to(parameter_type));
            for (at::Tensor& t : inputs) t = t.detach().requires_grad_();
            const at::Tensor none;
            const at::Tensor y = (fused ? group_norm : group_norm_composition)(inputs[0], s.groups, inputs[1],
                                                                               inputs[2], modulated ? inputs[3] : none,
                                                                               modulated ? inputs[4] : none, silu);
            y.backward(direction.to(dtype).to(y.scalar_type()));
            std::vector<at::Tensor> out;
            for (const at::Tensor& t : inputs) {
              if (t.grad().defined()) out.push_back(t.grad());
            }
            return out;
          };
          const auto actual = gradients(true, dtype, at::kFloat);
          const auto expected = gradients(false, at::kDouble, at::kDouble);
          const auto plain = gradients(false, at::kFloat, at::kFloat);
          ASSERT_EQ(actual.size(), modulated ? 5U : 3U);
          EXPECT_TRUE(actual[0].is_contiguous(at::MemoryFormat::ChannelsLast));
          for (size_t i = 0; i < actual.size(); ++i) {
            // Two values per group cancel all but a trace of the gradient: there float32 itself is the measure.
            const double bound = std::max(tolerance, 4 * error_of(plain[i], expected[i]));
            EXPECT_LT(error_of(actual[i], expected[i]), bound)
                << i << ' ' << dtype << " silu " << silu << " modulated " << modulated;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GroupNormTest,
                         ::testing::Values(NormShape{1, 64, 1, 1, 32}, NormShape{2, 32, 16, 16, 8},
                                           NormShape{3, 96, 7, 5, 32}, NormShape{1, 256, 64, 64, 32},
                                           NormShape{2, 12, 33, 31, 4}, NormShape{1, 1536, 8, 8, 32}));

TEST(GroupNormGradients, AgreeWithFiniteDifferences) {
  at::Generator generator = at::detail::createCPUGenerator(8);
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, generator, at::kDouble).requires_grad_(); };
  const std::vector<at::Tensor> inputs = {random({2, 8, 3, 3}), random({8}), random({8}), random({2, 8}),
                                          random({2, 8})};
  const at::Tensor direction = at::randn({2, 8, 3, 3}, generator, at::kDouble);
  const auto loss = [&] {
    return (group_norm(inputs[0], 4, inputs[1], inputs[2], inputs[3], inputs[4], true) * direction).sum();
  };
  loss().backward();
  const c10::NoGradGuard no_grad;
  for (const at::Tensor& input : inputs) {
    const at::Tensor gradient = input.grad();
    double* values = input.data_ptr<double>();
    for (int64_t i = 0; i < input.numel(); i += 7) {
      const double kept = values[i], step = 1e-6;
      values[i] = kept + step;
      const double above = loss().item<double>();
      values[i] = kept - step;
      const double below = loss().item<double>();
      values[i] = kept;
      EXPECT_NEAR(gradient.flatten()[i].item<double>(), (above - below) / (2 * step), 1e-6);
    }
  }
}

TEST(GroupNorm, DoesNotDependOnTheNumberOfThreads) {
  at::Generator generator = at::detail::createCPUGenerator(9);
  const at::Tensor x = channels_last(at::randn({2, 64, 50, 50}, generator, at::kFloat));
  const at::Tensor weight = at::ones({64}), bias = at::zeros({64});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = group_norm(x, 32, weight, bias, {}, {}, true);
  at::set_num_threads(2);
  const at::Tensor two = group_norm(x, 32, weight, bias, {}, {}, true);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.equal(two));
}

TEST(GroupNormOfJoined, EqualsThatOfTheJoinedTensor) {
  struct Joined {
    int64_t first, second, height, width, groups;
  };
  for (const Joined& s : {Joined{32, 32, 9, 7, 4},
                          {16, 48, 5, 5, 32},
                          {64, 32, 1, 1, 3},
                          {5, 7, 6, 3, 4},
                          {40, 24, 33, 17, 8},
                          {1, 31, 4, 4, 32}}) {
    const at::Generator generator = at::detail::createCPUGenerator(9);
    const at::Tensor weight = at::randn({s.first + s.second}, generator, at::kFloat);
    const at::Tensor bias = at::randn({s.first + s.second}, generator, at::kFloat);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const auto image = [&](int64_t channels) {
        return channels_last((at::randn({2, channels, s.height, s.width}, generator, at::kFloat) + 3).to(type));
      };
      const at::Tensor x = image(s.first), rest = image(s.second);
      for (const bool silu : {false, true}) {
        const at::Tensor joined =
            group_norm(channels_last(at::cat({x, rest}, 1)), s.groups, weight, bias, {}, {}, silu);
        const at::Tensor apart = group_norm_of_joined(x, rest, s.groups, weight, bias, silu);
        EXPECT_TRUE(apart.is_contiguous(at::MemoryFormat::ChannelsLast));
        // Sums are made in another order where a part's channels are no multiple of the vectors' length.
        EXPECT_LT(error_of(apart, joined.to(at::kDouble)), type == at::kFloat ? 1e-6 : 8e-3) << s.first;
      }
    }
    // With gradients the joined tensor is made.
    const at::Tensor x = at::randn({1, s.first, 3, 3}).requires_grad_(), rest = at::randn({1, s.second, 3, 3});
    group_norm_of_joined(x, rest, s.groups, weight, bias, true).sum().backward();
    EXPECT_TRUE(x.grad().defined());
  }
}

}  // namespace
}  // namespace mdm::ops
