// The fused optimizer step against its definition and an independent calculation, and the norm for clipping.
#include "mdm/ops/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "mdm/core/error.h"
#include "ops/adamw_ema_composition.h"

namespace mdm::ops {
namespace {

OptimizerBuffers make_buffers(int64_t count, uint64_t seed, bool ema = true, bool compute = true) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  OptimizerBuffers b;
  b.weights = at::randn({count}, generator, at::kFloat);
  b.gradients = at::randn({count}, generator, at::kFloat) * at::randn({count}, generator, at::kFloat).exp();
  b.exp_avg = at::randn({count}, generator, at::kFloat) * 0.1;
  b.exp_avg_sq = at::randn({count}, generator, at::kFloat).square() * 0.1;
  if (ema) b.ema = at::randn({count}, generator, at::kFloat);
  if (compute) b.compute = at::empty({count}, at::kBFloat16);
  return b;
}

OptimizerBuffers copy(const OptimizerBuffers& b) {
  const auto clone = [](const at::Tensor& t) { return t.defined() ? t.clone() : t; };
  return {clone(b.weights), clone(b.gradients), clone(b.exp_avg), clone(b.exp_avg_sq), clone(b.ema), clone(b.compute)};
}

AdamSettings settings(int64_t update) {
  AdamSettings s;
  s.lr = 3e-3;
  s.weight_decay = 0.02;
  s.update = update;
  s.gradient_factor = 0.37;
  s.ema_decay = 0.9;
  return s;
}

class OptimizerTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(OptimizerTest, FusedEqualsTheComposition) {
  for (const bool ema : {true, false}) {
    for (const bool compute : {true, false}) {
      OptimizerBuffers fused = make_buffers(GetParam(), 1, ema, compute), plain = copy(fused);
      for (int64_t update = 1; update <= 3; ++update) {
        adamw_ema_step(fused, settings(update));
        adamw_ema_step_composition(plain, settings(update));
      }
      EXPECT_TRUE(fused.weights.allclose(plain.weights, 1e-5, 1e-7));
      EXPECT_TRUE(fused.exp_avg.allclose(plain.exp_avg, 1e-5, 1e-7));
      EXPECT_TRUE(fused.exp_avg_sq.allclose(plain.exp_avg_sq, 1e-5, 1e-9));
      EXPECT_TRUE(!ema || fused.ema.allclose(plain.ema, 1e-5, 1e-7));
      EXPECT_TRUE(!compute || fused.compute.equal(fused.weights.to(at::kBFloat16)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, OptimizerTest, ::testing::Values(1, 15, 2048, 2049, 100003));

// Written out in double, as the papers have it (Kingma and Ba 2014, algorithm 1; Loshchilov and Hutter 2017,
// algorithm 2).
TEST(Optimizer, EqualsTheFormulasInFloat64) {
  const OptimizerBuffers before = make_buffers(1000, 2);
  const OptimizerBuffers b = copy(before);
  const AdamSettings s = settings(7);
  adamw_ema_step(b, s);
  for (int64_t i = 0; i < 1000; ++i) {
    const double g = before.gradients[i].item<double>() * s.gradient_factor;
    const double m = s.beta1 * before.exp_avg[i].item<double>() + (1 - s.beta1) * g;
    const double v = s.beta2 * before.exp_avg_sq[i].item<double>() + (1 - s.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(s.beta1, 7)), v_hat = v / (1 - std::pow(s.beta2, 7));
    const double w0 = before.weights[i].item<double>();
    const double w = w0 - s.lr * (m_hat / (std::sqrt(v_hat) + s.eps) + s.weight_decay * w0);
    EXPECT_NEAR(b.weights[i].item<double>(), w, 2e-6 * (1 + std::abs(w)));
    EXPECT_NEAR(b.exp_avg[i].item<double>(), m, 2e-6);
    EXPECT_NEAR(b.exp_avg_sq[i].item<double>(), v, 2e-6 * (1 + v));
    EXPECT_NEAR(b.ema[i].item<double>(), 0.9 * before.ema[i].item<double>() + 0.1 * w, 2e-6);
  }
}

// torch.optim.AdamW, whose kernel LibTorch has.
TEST(Optimizer, EqualsTheKernelOfPyTorch) {
  const OptimizerBuffers b = make_buffers(5000, 3, false, false);
  OptimizerBuffers theirs = copy(b);
  AdamSettings s = settings(1);
  s.gradient_factor = 1;
  for (int64_t update = 1; update <= 5; ++update) {
    s.update = update;
    adamw_ema_step(b, s);
    at::Tensor steps = at::full({}, static_cast<double>(update), at::kFloat);
    std::vector<at::Tensor> p = {theirs.weights}, g = {theirs.gradients}, m = {theirs.exp_avg}, v = {theirs.exp_avg_sq};
    at::_fused_adamw_(p, g, m, v, {}, {steps}, s.lr, s.beta1, s.beta2, s.weight_decay, s.eps, false, false);
  }
  EXPECT_TRUE(b.weights.allclose(theirs.weights, 1e-5, 1e-6));
  EXPECT_TRUE(b.exp_avg.allclose(theirs.exp_avg, 1e-5, 1e-6));
  EXPECT_TRUE(b.exp_avg_sq.allclose(theirs.exp_avg_sq, 1e-5, 1e-6));
}

TEST(Optimizer, NeitherThreadsNorCutsChangeABit) {
  const OptimizerBuffers whole = make_buffers(200000, 4), parts = copy(whole), one = copy(whole);
  adamw_ema_step(whole, settings(3));
  for (int64_t first = 0; first < 200000; first += 33333) {
    adamw_ema_step(parts.narrow(first, std::min<int64_t>(33333, 200000 - first)), settings(3));
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  adamw_ema_step(one, settings(3));
  at::set_num_threads(threads);
  for (const OptimizerBuffers* other : {&parts, &one}) {
    EXPECT_TRUE(whole.weights.equal(other->weights));
    EXPECT_TRUE(whole.exp_avg.equal(other->exp_avg));
    EXPECT_TRUE(whole.exp_avg_sq.equal(other->exp_avg_sq));
    EXPECT_TRUE(whole.ema.equal(other->ema));
    EXPECT_TRUE(whole.compute.equal(other->compute));
  }
}

// The composition is cut into slices, so that its temporaries stay small: the results are those of the whole, and of
// the kernel for the CPU.
TEST(Optimizer, SlicesOfTheCompositionMakeTheWhole) {
  const OptimizerBuffers whole = make_buffers(10007, 8), parts = copy(whole), fused = copy(whole);
  for (int64_t update = 1; update <= 3; ++update) {
    adamw_ema_step_composition(whole, settings(update));
    adamw_ema_step_composition(parts, settings(update), 1000);
    adamw_ema_step(fused, settings(update));
  }
  EXPECT_TRUE(whole.weights.equal(parts.weights));
  EXPECT_TRUE(whole.exp_avg.equal(parts.exp_avg));
  EXPECT_TRUE(whole.exp_avg_sq.equal(parts.exp_avg_sq));
  EXPECT_TRUE(whole.ema.equal(parts.ema));
  EXPECT_TRUE(whole.compute.equal(parts.compute));
  EXPECT_TRUE(fused.weights.allclose(parts.weights, 1e-5, 1e-7));
  EXPECT_TRUE(fused.ema.allclose(parts.ema, 1e-5, 1e-7));
}

TEST(SumOfSquares, SlicesOfTheCompositionMakeTheWhole) {
  const at::Tensor x = at::randn({100003}, at::detail::createCPUGenerator(9), at::kFloat) * 1e15;
  const double expected = sum_of_squares(x);
  for (const int64_t slice : {1000, 100003, 1 << 24}) {
    EXPECT_NEAR(sum_of_squares_composition(x, slice), expected, 1e-12 * expected);
  }
  EXPECT_EQ(sum_of_squares_composition(at::empty({0}), 1000), 0);
  EXPECT_TRUE(x.equal(at::randn({100003}, at::detail::createCPUGenerator(9), at::kFloat) * 1e15)) << "only read";
}

TEST(Optimizer, WhatIsZeroStaysZero) {
  OptimizerBuffers b = make_buffers(100, 5);
  for (at::Tensor* t : {&b.weights, &b.gradients, &b.exp_avg, &b.exp_avg_sq, &b.ema}) t->zero_();
  adamw_ema_step(b, settings(1));
  for (const at::Tensor* t : {&b.weights, &b.exp_avg, &b.exp_avg_sq, &b.ema})
    EXPECT_EQ(t->abs().max().item<float>(), 0);
}

// As torch.nn.utils.clip_grad_norm_ has it.
TEST(Optimizer, ClipsByNumbersThatLieWithTheBuffers) {
  const auto number = [](double v) { return at::full({1}, v, at::kDouble); };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double clip_norm : {0.5, 1e6}) {
    const OptimizerBuffers clipped = make_buffers(1000, 8), plain = copy(clipped);
    const at::Tensor squares = sum_of_squares_tensor(clipped.gradients);
    EXPECT_EQ(squares.item<double>(), sum_of_squares(clipped.gradients));
    adamw_ema_step(clipped, settings(3), {squares, number(2), number(4), clip_norm});
    AdamSettings s = settings(3);
    s.gradient_factor = std::min(1.0, clip_norm / (std::sqrt(squares.item<double>()) / 4 + 1e-6)) / 4;
    adamw_ema_step(plain, s);
    EXPECT_TRUE(clipped.weights.equal(plain.weights) && clipped.ema.equal(plain.ema));
    for (const auto& [sum, loss, weight] :
         {std::array<double, 3>{nan, 2, 4}, {1, nan, 4}, {1, 2, nan}, {1, 2, 0}, {INFINITY, 2, 4}}) {
      adamw_ema_step(clipped, settings(4), {number(sum), number(loss), number(weight), clip_norm});
      EXPECT_TRUE(clipped.weights.equal(plain.weights) && clipped.exp_avg.equal(plain.exp_avg)) << "no step";
    }
    EXPECT_THROW(adamw_ema_step(clipped, settings(4), {number(1).to(at::kFloat), number(1), number(1), 1}), Error);
  }
}

TEST(Optimizer, RefusesBuffersThatDontFit) {
  const OptimizerBuffers b = make_buffers(100, 6);
  OptimizerBuffers bad = b;
  bad.gradients = b.gradients.narrow(0, 0, 99);
  EXPECT_THROW(adamw_ema_step(bad, settings(1)), Error);
  bad = b;
  bad.exp_avg = b.exp_avg.to(at::kDouble);
  EXPECT_THROW(adamw_ema_step(bad, settings(1)), Error);
  bad = b;
  bad.compute = b.weights.clone();
  EXPECT_THROW(adamw_ema_step(bad, settings(1)), Error);
  EXPECT_THROW(adamw_ema_step(b, settings(0)), Error);
}

TEST(SumOfSquares, IsExactAndIndependentOfThreads) {
  for (const int64_t count : {0, 1, 17, 65536, 65537, 1000003}) {
    const at::Tensor x = at::randn({count}, at::detail::createCPUGenerator(7), at::kFloat) * 1e15;
    const double expected = x.to(at::kDouble).square().sum().item<double>();
    const int threads = at::get_num_threads();
    const double sum = sum_of_squares(x);
    at::set_num_threads(1);
    EXPECT_EQ(sum, sum_of_squares(x));
    at::set_num_threads(threads);
    EXPECT_NEAR(sum, expected, 1e-12 * expected);
  }
  at::Tensor x = at::ones({100000});
  x[99999] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(sum_of_squares(x)));
}

}  // namespace
}  // namespace mdm::ops
