// The parameter arena: slices that alias, and one optimizer step over all of them.
#include "mdm/training/parameter_arena.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "mdm/core/error.h"

namespace mdm {
namespace {

struct Toy {
  at::Tensor conv, norm, frozen, unused;
  std::vector<ArenaParameter> parameters() const {
    return {{"norm", norm, ArenaSegment::kTrained, true},
            {"unused", unused, ArenaSegment::kUnused, false},
            {"conv", conv, ArenaSegment::kTrained, false},
            {"frozen", frozen, ArenaSegment::kFrozen, false}};
  }
};

at::Tensor parameter(at::IntArrayRef shape, uint64_t seed) {
  at::Tensor t = at::randn(shape, at::detail::createCPUGenerator(seed), at::kFloat);
  if (t.dim() == 4) t = t.contiguous(at::MemoryFormat::ChannelsLast);
  return t.set_requires_grad(true);
}

Toy make_toy() { return {parameter({5, 3, 3, 3}, 1), parameter({7}, 2), parameter({4, 4}, 3), parameter({9}, 4)}; }

// A loss that reaches all parameters in use.
at::Tensor loss_of(const Toy& toy) {
  const at::Tensor conv = toy.conv.to(at::kFloat), frozen = toy.frozen.to(at::kFloat);
  return (conv * conv).sum() + (toy.norm * 3).sum() * frozen.sum();
}

class ArenaTest : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  static ParameterArena::Options options() {
    ParameterArena::Options out;
    out.compute = GetParam();
    return out;
  }
};

TEST_P(ArenaTest, TensorsBecomeSlicesWithTheirStridesAndValues) {
  Toy toy = make_toy();
  const at::Tensor conv = toy.conv.detach().clone(), norm = toy.norm.detach().clone();
  ParameterArena arena(toy.parameters(), options());
  EXPECT_NO_THROW(arena.check_aliasing());
  EXPECT_EQ(toy.conv.scalar_type(), GetParam());
  EXPECT_EQ(toy.norm.scalar_type(), at::kFloat) << "kept in float32";
  EXPECT_TRUE(toy.conv.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(toy.conv.to(at::kFloat).equal(conv.to(GetParam()).to(at::kFloat)));
  std::vector<std::string> names;
  for (const NamedTensor& item : arena.weights()) names.push_back(item.name);
  EXPECT_EQ(names, (std::vector<std::string>{"norm", "unused", "conv", "frozen"}));
  EXPECT_TRUE(arena.weights()[2].tensor.equal(conv)) << "files come from the float32 weights";
  EXPECT_TRUE(arena.weights()[0].tensor.equal(norm));
  EXPECT_EQ(arena.numbers(), 7 + 9 + 135 + 16);
  EXPECT_EQ(arena.trained_numbers(), 7 + 135);
  EXPECT_EQ(arena.moments().size(), 4U);
  EXPECT_TRUE(toy.conv.requires_grad());
  EXPECT_FALSE(toy.frozen.requires_grad());
  EXPECT_FALSE(toy.unused.requires_grad());
}

TEST_P(ArenaTest, GradientsAddUpInTheBufferInFloat32) {
  Toy toy = make_toy();
  ParameterArena arena(toy.parameters(), options());
  loss_of(toy).backward();
  loss_of(toy).backward();
  EXPECT_NO_THROW(arena.check_aliasing());
  const at::Tensor expected = 4 * toy.conv.detach().to(at::kFloat);
  EXPECT_TRUE(arena.gradients()[1].tensor.allclose(expected, 1e-2, 1e-3));
  EXPECT_EQ(toy.conv.grad().scalar_type(), at::kFloat);
  int64_t in_slots = 0;
  for (const NamedTensor& item : arena.gradients()) in_slots += item.tensor.count_nonzero().item<int64_t>();
  EXPECT_EQ(arena.flat_gradients().count_nonzero().item<int64_t>(), in_slots) << "padding stays 0";
  arena.zero_gradients();
  EXPECT_EQ(toy.conv.grad().abs().max().item<float>(), 0);
}

// Writing to one slice must not invalidate what another slice's backward pass has saved.
TEST_P(ArenaTest, SlicesHaveVersionsOfTheirOwn) {
  Toy toy = make_toy();
  ParameterArena arena(toy.parameters(), options());
  const at::Tensor loss = loss_of(toy);
  {
    const c10::NoGradGuard no_grad;
    toy.unused.add_(1);
  }
  EXPECT_NO_THROW(loss.backward());
}

TEST_P(ArenaTest, AStepMovesTrainedParametersAlone) {
  Toy toy = make_toy();
  ParameterArena arena(toy.parameters(), options());
  const at::Tensor frozen = arena.weights()[3].tensor.clone(), unused = arena.weights()[1].tensor.clone();
  const at::Tensor conv = arena.weights()[2].tensor.clone(), norm = arena.weights()[0].tensor.clone();
  loss_of(toy).backward();
  ops::AdamSettings settings;
  settings.weight_decay = 0.5;
  settings.lr = 0.1;
  arena.update(settings);
  EXPECT_TRUE(arena.weights()[3].tensor.equal(frozen));
  EXPECT_TRUE(arena.weights()[1].tensor.equal(unused)) << "no weight decay for what is unused";
  EXPECT_GT((arena.weights()[2].tensor - conv).abs().min().item<float>(), 0);
  EXPECT_GT((arena.weights()[0].tensor - norm).abs().min().item<float>(), 0);
  EXPECT_TRUE(toy.conv.to(at::kFloat).equal(arena.weights()[2].tensor.to(GetParam()).to(at::kFloat)))
      << "the module computes with the new weights";
  EXPECT_TRUE(toy.norm.equal(arena.weights()[0].tensor));
}

TEST_P(ArenaTest, AveragedWeightsAreSwappedInAndOut) {
  Toy toy = make_toy();
  ParameterArena arena(toy.parameters(), options());
  loss_of(toy).backward();
  ops::AdamSettings settings;
  settings.lr = 0.1;
  settings.ema_decay = 0.9;
  arena.update(settings);
  const at::Tensor before = toy.conv.detach().clone(), norm = toy.norm.detach().clone();
  ASSERT_FALSE(arena.ema()[2].tensor.equal(arena.weights()[2].tensor));
  {
    const ParameterArena::UseEma use(arena);
    EXPECT_TRUE(toy.conv.to(at::kFloat).equal(arena.ema()[2].tensor.to(GetParam()).to(at::kFloat)));
    EXPECT_TRUE(toy.norm.equal(arena.ema()[0].tensor));
    EXPECT_THROW(arena.update(settings), Error);
    EXPECT_NO_THROW(arena.check_aliasing());
  }
  EXPECT_TRUE(toy.conv.equal(before));
  EXPECT_TRUE(toy.norm.equal(norm));
  EXPECT_NO_THROW(arena.check_aliasing());
  loss_of(toy).backward();  // gradients still arrive in the buffer
  EXPECT_NO_THROW(arena.check_aliasing());
}

TEST_P(ArenaTest, FindsTensorsThatHaveLeft) {
  Toy toy = make_toy();
  ParameterArena arena(toy.parameters(), options());
  toy.conv.mutable_grad() = at::Tensor();
  EXPECT_THROW(arena.check_aliasing(), Error);
  Toy other = make_toy();
  ParameterArena second(other.parameters(), options());
  other.norm.set_data(other.norm.detach().clone());
  EXPECT_THROW(second.check_aliasing(), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, ArenaTest, ::testing::Values(at::kFloat, at::kBFloat16));

TEST(Arena, RefusesTwinsAndOtherTypes) {
  const at::Tensor t = at::zeros({3});
  EXPECT_THROW(
      ParameterArena({{"a", t, ArenaSegment::kTrained, false}, {"a", at::zeros({3}), ArenaSegment::kTrained, false}},
                     ParameterArena::Options()),
      Error);
  EXPECT_THROW(
      ParameterArena({{"a", at::zeros({3}, at::kDouble), ArenaSegment::kTrained, false}}, ParameterArena::Options()),
      Error);
}

// k steps of averaging with decays d_1..d_k: ema_k = prod(d) w_0 + sum_i (1 - d_i) prod_{j > i}(d_j) w_i.
TEST(Arena, AveragesEqualTheClosedForm) {
  const at::Tensor t = parameter({100}, 9);
  ParameterArena arena({{"t", t, ArenaSegment::kTrained, false}}, ParameterArena::Options());
  std::vector<at::Tensor> weights = {t.detach().to(at::kDouble).clone()};
  std::vector<double> decays = {1};
  for (int64_t k = 1; k <= 20; ++k) {
    arena.zero_gradients();
    (t * t).sum().backward();
    ops::AdamSettings settings;
    settings.lr = 0.05;
    settings.update = k;
    settings.ema_decay = std::min(0.9, (1.0 + static_cast<double>(k)) / (10.0 + static_cast<double>(k)));
    arena.update(settings);
    weights.push_back(t.detach().to(at::kDouble).clone());
    decays.push_back(settings.ema_decay);
  }
  at::Tensor expected = at::zeros({100}, at::kDouble);
  for (size_t i = 0; i < weights.size(); ++i) {
    double factor = i == 0 ? 1 : 1 - decays[i];
    for (size_t j = i + 1; j < decays.size(); ++j) factor *= decays[j];
    expected += factor * weights[i];
  }
  EXPECT_TRUE(arena.ema()[0].tensor.to(at::kDouble).allclose(expected, 1e-5, 1e-6));
}

}  // namespace
}  // namespace mdm
