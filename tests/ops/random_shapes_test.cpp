// Fused operations over random shapes, layouts and types against their definition in float64. 40 shapes each;
// scripts/soak.sh sets MDM_OP_SHAPES to 200. The whole program is run once for each set of instructions
// (CMakeLists.txt).
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/ops/layers.h"
#include "mdm/ops/normalization.h"
#include "ops/instructions.h"
#include "ops/plain_convolution.h"
#include "ops/upsampled_convolution.h"
#include "ops/winograd_cpu.h"

namespace mdm::ops {
namespace {

int shapes() {
  const char* const text = std::getenv("MDM_OP_SHAPES");
  return text != nullptr ? std::atoi(text) : 40;
}

class Dice {
 public:
  explicit Dice(unsigned seed) : random_(seed), generator_(at::detail::createCPUGenerator(seed)) {}
  int64_t between(int64_t least, int64_t most) { return std::uniform_int_distribution<int64_t>(least, most)(random_); }
  bool coin() { return between(0, 1) == 1; }
  at::Tensor normal(at::IntArrayRef shape) {
    return at::randn(shape, generator_, at::TensorOptions().dtype(at::kDouble));
  }
  // One of the layouts that a caller may hand over.
  at::Tensor laid_out(const at::Tensor& x) {
    switch (between(0, 3)) {
      case 0: return x.contiguous();
      case 1: return at::cat({x, x}, 3).narrow(3, 0, x.size(3));  // gaps between rows
      default: return x.contiguous(at::MemoryFormat::ChannelsLast);
    }
  }

 private:
  std::mt19937 random_;
  at::Generator generator_;
};

double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  if (expected.numel() == 0) return actual.numel() == 0 ? 0 : INFINITY;
  const double scale = expected.abs().max().item<double>();
  return (actual.to(at::kDouble) - expected).abs().max().item<double>() / std::max(scale, 1e-6);
}

// That a run with MDM_INSTRUCTIONS really is one with those.
TEST(Instructions, AreThoseThatWereAskedFor) {
  const char* const asked = std::getenv("MDM_INSTRUCTIONS");
  const std::string name = asked != nullptr ? asked : "avx512";
  const Instructions wanted = name == "scalar" ? Instructions::kScalar
                              : name == "avx2" ? Instructions::kAvx2
                                               : Instructions::kAvx512;
  EXPECT_EQ(instructions(), std::min(wanted, best_instructions()));
}

TEST(RandomShapes, GroupNormForwardAndBackward) {
  Dice dice(21);
  for (int round = 0; round < shapes(); ++round) {
    const int64_t width = dice.between(1, 9), groups = dice.between(1, 12), channels = width * groups;
    const int64_t batch = round % 10 == 9 ? 0 : dice.between(1, 3);
    const bool modulated = dice.coin(), silu = dice.coin(), rounded = dice.coin();
    const at::ScalarType type = rounded ? at::kBFloat16 : at::kFloat;
    const at::Tensor x = dice.laid_out(dice.normal({batch, channels, dice.between(1, 20), dice.between(1, 20)}) +
                                       static_cast<double>(dice.between(0, 5)));
    const at::Tensor direction = dice.normal(x.sizes());
    std::vector<at::Tensor> parameters = {dice.normal({channels}), dice.normal({channels})};
    if (modulated) {
      parameters.push_back(dice.normal({batch, channels}));
      parameters.push_back(dice.normal({batch, channels}));
    }
    const auto run = [&](bool fused) {
      const at::ScalarType work = fused ? type : at::kDouble, numbers = fused ? at::kFloat : at::kDouble;
      std::vector<at::Tensor> in = {x.to(type).to(work)};
      for (const at::Tensor& p : parameters) in.push_back(p.to(at::kFloat).to(numbers));
      for (at::Tensor& t : in) t = t.detach().requires_grad_();
      const at::Tensor scale = modulated ? in[3] : at::Tensor(), shift = modulated ? in[4] : at::Tensor();
      const at::Tensor y =
          (fused ? group_norm : group_norm_composition)(in[0], groups, in[1], in[2], scale, shift, silu);
      y.backward(direction.to(type).to(work));
      std::vector<at::Tensor> out = {y.detach()};
      for (const at::Tensor& t : in) out.push_back(t.grad());
      return out;
    };
    const std::vector<at::Tensor> actual = run(true), expected = run(false);
    for (size_t i = 0; i < actual.size(); ++i) {
      // A group of few numbers has a deviation near 0 now and then, which magnifies what is rounded.
      EXPECT_LT(relative_error(actual[i], expected[i]), rounded ? 3e-2 : 1e-4)
          << "round " << round << ", tensor " << i << ", " << x.sizes() << " strides " << x.strides() << " in "
          << groups << " groups, " << type << " silu " << silu << " modulated " << modulated;
    }
    if (batch == 0) continue;
    const c10::NoGradGuard no_grad;  // inference takes another way
    const at::Tensor scale = modulated ? parameters[2].to(at::kFloat) : at::Tensor();
    const at::Tensor shift = modulated ? parameters[3].to(at::kFloat) : at::Tensor();
    EXPECT_TRUE(
        group_norm(x.to(type), groups, parameters[0].to(at::kFloat), parameters[1].to(at::kFloat), scale, shift, silu)
            .equal(actual[0]));
  }
}

TEST(RandomShapes, PackedConvolutions) {
  const c10::NoGradGuard no_grad;
  Dice dice(22);
  for (int round = 0; round < shapes(); ++round) {
    const bool many = dice.coin(), rounded = dice.coin();
    const int64_t in = many ? 16 * dice.between(4, 6) : dice.between(1, 40);
    const int64_t out = many ? 16 * dice.between(4, 6) : dice.between(1, 40);
    const int64_t kernel = dice.coin() ? 3 : 1, stride = kernel == 3 ? dice.between(1, 2) : 1;
    const std::vector<int64_t> size = {dice.between(1, 3), in, dice.between(1, 24), dice.between(1, 24)};
    const at::ScalarType type = rounded ? at::kBFloat16 : at::kFloat;
    const double tolerance = rounded ? 1.6e-2 : 6e-6;
    const auto layer = [&] {
      Conv2d conv(in, out, kernel, stride, kernel / 2);
      conv.init(at::detail::createCPUGenerator(static_cast<uint64_t>(round)));
      conv.to(type);
      return conv;
    };
    Conv2d conv = layer();
    const at::Tensor weight = conv.weight.to(at::kDouble), bias = conv.bias.to(at::kDouble);
    const at::Tensor x = dice.laid_out(dice.normal(size).to(type)), exact_x = x.to(at::kDouble);
    const at::Tensor plain = at::conv2d(exact_x, weight, bias, stride, kernel / 2);
    const at::Tensor added = dice.normal(plain.sizes()).to(type).contiguous(at::MemoryFormat::ChannelsLast);
    const std::string what = concat("round ", round, ": ", x.sizes(), " to ", out, ", kernel ", kernel, " stride ",
                                    stride, ", ", toString(type));
    EXPECT_LT(relative_error(conv.forward(x), plain), tolerance) << what;
    conv.pack(size);
    EXPECT_LT(relative_error(conv.forward(x), plain), tolerance) << what << " packed";
    EXPECT_LT(relative_error(conv.forward_gelu(Recomputable(x)).value(), at::gelu(plain)), tolerance)
        << what << " gelu";
    const at::Tensor sum = plain + added.to(at::kDouble);
    EXPECT_LT(relative_error(conv.forward_plus(x, added), sum), tolerance) << what << " plus";
    EXPECT_LT(relative_error(conv.forward_onto(added.clone(), x), sum), tolerance) << what << " onto";
    if (kernel == 3 && stride == 1) {
      Conv2d upsampled = layer();
      upsampled.pack_upsampled(size);
      const at::Tensor large = exact_x.repeat_interleave(2, 2).repeat_interleave(2, 3);
      EXPECT_LT(relative_error(upsampled.forward_upsampled(x), at::conv2d(large, weight, bias, 1, 1)), tolerance)
          << what << " upsampled";
    }
    if (kernel == 1 && in > 1) {
      Conv2d joined = layer();
      const int64_t first = dice.between(1, in - 1);
      joined.pack_joined(size, first);
      const auto part = [&](int64_t from, int64_t count) {
        return x.narrow(1, from, count).contiguous(at::MemoryFormat::ChannelsLast);
      };
      EXPECT_LT(relative_error(joined.forward_joined(part(0, first), part(first, in - first)), plain), tolerance)
          << what << " joined at " << first;
    }
  }
}

// What a training step runs: the plain weight, forward and backward, whatever way the layer chooses.
TEST(RandomShapes, ConvolutionGradients) {
  Dice dice(23);
  for (int round = 0; round < shapes(); ++round) {
    const bool wide = round % 4 == 0, rounded = dice.coin();
    const int64_t in = wide ? 512 : dice.between(1, 40), out = wide ? 512 : dice.between(1, 40);
    const int64_t kernel = wide || dice.coin() ? 1 : 3;
    const at::ScalarType type = rounded ? at::kBFloat16 : at::kFloat;
    Conv2d conv(in, out, kernel, 1, kernel / 2);
    conv.init(at::detail::createCPUGenerator(static_cast<uint64_t>(round)));
    conv.to(type);
    const at::Tensor x =
        dice.laid_out(dice.normal({dice.between(1, 3), in, dice.between(1, 12), dice.between(1, 12)}).to(type));
    const at::Tensor direction = dice.normal({x.size(0), out, x.size(2), x.size(3)}).to(type);
    const at::Tensor own = x.detach().requires_grad_();
    conv.forward(own).backward(direction);
    std::vector<at::Tensor> exact;
    for (const at::Tensor& t : {x, conv.weight, conv.bias})
      exact.push_back(t.detach().to(at::kDouble).requires_grad_());
    at::conv2d(exact[0], exact[1], exact[2], 1, kernel / 2).backward(direction.to(at::kDouble));
    const at::Tensor actual[] = {own.grad(), conv.weight.grad(), conv.bias.grad()};
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_LT(relative_error(actual[i], exact[i].grad()), rounded ? 2e-2 : 2e-5)
          << "round " << round << ", tensor " << i << ": " << x.sizes() << " to " << out << ", kernel " << kernel << ' '
          << type;
    }
  }
}

// The same of inputs that are made again in the backward pass, all the ways that a residual block and an attention
// layer make theirs.
TEST(RandomShapes, GradientsOfRecomputedInputs) {
  Dice dice(24);
  for (int round = 0; round < shapes(); ++round) {
    const bool wide = round % 8 == 0, rounded = dice.coin();
    const int64_t groups = wide ? 32 : dice.between(1, 6), in = wide ? 512 : groups * dice.between(2, 7);
    const int64_t out = wide ? 512 : dice.between(1, 40), kernel = wide || dice.coin() ? 1 : 3;
    const int64_t way = dice.between(0, 4), first = dice.between(1, in - 1);
    const at::ScalarType type = rounded ? at::kBFloat16 : at::kFloat;
    const at::Tensor x =
        dice.laid_out(dice.normal({dice.between(1, 3), in, dice.between(1, 12), dice.between(1, 12)}).to(type));
    const at::Tensor direction = dice.normal({x.size(0), out, x.size(2), x.size(3)}).to(type);
    const std::vector<at::Tensor> numbers = {dice.normal({in}), dice.normal({in}), dice.normal({x.size(0), in}),
                                             dice.normal({x.size(0), in})};
    const at::Tensor weight = dice.normal({out, in, kernel, kernel}).to(type), bias = dice.normal({out}).to(type);
    // Leaves: x in two parts, the norm's weight and bias, scale, shift, the convolution's weight and bias.
    const auto gradients = [&](at::ScalarType work, const auto& run) {
      std::vector<at::Tensor> leaves = {x.narrow(1, 0, first).to(work), x.narrow(1, first, in - first).to(work)};
      for (at::Tensor& part : leaves) part = part.contiguous(x.suggest_memory_format());
      const at::ScalarType parameters = work == at::kDouble ? work : at::kFloat;
      for (const at::Tensor& t : numbers) leaves.push_back(t.to(at::kFloat).to(parameters));
      leaves.push_back(weight.to(work));
      leaves.push_back(bias.to(work));
      for (at::Tensor& leaf : leaves) leaf = leaf.detach().requires_grad_();
      run(leaves).backward(direction.to(work));
      return leaves;
    };
    const std::vector<int64_t> stride = {1, 1}, padding = {kernel / 2, kernel / 2};
    const auto actual = gradients(type, [&](const std::vector<at::Tensor>& t) {
      const auto make = [&](at::TensorList from) {
        const at::Tensor both = at::cat({from[0], from[1]}, 1);
        switch (way) {
          case 0: return group_norm(both, groups, from[2], from[3], {}, {}, false);
          case 1: return group_norm(both, groups, from[2], from[3], from[4], from[5], true);
          case 2: return group_norm_of_joined(from[0], from[1], groups, from[2], from[3], true);
          case 3: return at::gelu(both);
          default: return both;
        }
      };
      return plain_convolution(Recomputable{make, {t.begin(), t.begin() + 6}}, t[6], t[7], stride, padding);
    });
    const auto expected = gradients(at::kDouble, [&](const std::vector<at::Tensor>& t) {
      const at::Tensor both = at::cat({t[0], t[1]}, 1);
      const bool modulated = way == 1;
      const at::Tensor none;
      const at::Tensor input = way == 3   ? at::gelu(both)
                               : way == 4 ? both
                                          : group_norm_composition(both, groups, t[2], t[3], modulated ? t[4] : none,
                                                                   modulated ? t[5] : none, way != 0);
      return at::conv2d(input, t[6], t[7], stride, padding);
    });
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(actual[i].grad().defined(), expected[i].grad().defined()) << way << ' ' << i;
      if (!actual[i].grad().defined()) continue;
      EXPECT_LT(relative_error(actual[i].grad(), expected[i].grad()), rounded ? 4e-2 : 1e-4)
          << "round " << round << ", way " << way << ", tensor " << i << ": " << x.sizes() << " strides " << x.strides()
          << " to " << out << ", kernel " << kernel << ' ' << type;
    }
  }
}

}  // namespace
}  // namespace mdm::ops
