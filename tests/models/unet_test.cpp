// Properties of the networks that no golden case shows: rows are independent of their neighbours, packed
// weights compute the same, conditioning can be cut, errors are typed.
#include "mdm/models/unet.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "mdm/core/error.h"

namespace mdm {
namespace {

constexpr int64_t kTextWidth = 24;

UNetConfig text_level(bool masked) {
  UNetConfig level;
  level.num_resnets_per_resolution = {1};
  level.temporal_dim = 32;
  level.attention_levels = {1};
  level.num_attention_layers = {0, 1};
  level.conditioning_feature_proj_dim = 16;
  level.masked_cross_attention = masked;
  level.resolution_channels = {8, 32};
  level.micro_conditioning = "scale:8";
  level.resnet_config.num_groups_norm = 8;
  level.resnet_config.use_attention_ffn = true;
  return level;
}

ModelConfig plain(bool masked = false) {
  ModelConfig model;
  model.levels = {text_level(masked)};
  return model;
}

ModelConfig nested() {
  ModelConfig model = plain();
  UNetConfig outer = text_level(false);
  outer.attention_levels = {};
  outer.conditioning_feature_proj_dim = -1;
  outer.skip_mid_blocks = true;
  outer.skip_cond_emb = true;
  outer.micro_conditioning = "scale:16";
  model.levels.insert(model.levels.begin(), outer);
  return model;
}

std::shared_ptr<UNet> build(const ModelConfig& config) {
  auto model = make_model(config, kTextWidth);
  model->init({make_generator(1), LayerInit::kSmallNormal});
  model->eval();
  return model;
}

at::Tensor random(at::IntArrayRef shape, uint64_t seed) { return at::randn(shape, make_generator(seed), at::kFloat); }

TextEmbedding text_of(const std::vector<int64_t>& tokens, const std::vector<int64_t>& attended, int64_t length) {
  TextEmbedding text;
  const auto batch = static_cast<int64_t>(tokens.size());
  text.lm_outputs = at::zeros({batch, length, kTextWidth});
  text.lm_mask = at::zeros({batch, length});
  text.attended_lengths = attended;
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t n = tokens[static_cast<size_t>(i)];
    text.lm_outputs[i].narrow(0, 0, n).copy_(random({n, kTextWidth}, 100 + static_cast<uint64_t>(i)));
    text.lm_mask[i].narrow(0, 0, n).fill_(1);
  }
  return text;
}

std::vector<at::Tensor> inputs_of(const UNet& model, int64_t batch) {
  std::vector<at::Tensor> x_t;
  for (size_t i = 0; i < model.levels(); ++i) {
    const int64_t side = int64_t{8} << (model.levels() - 1 - i);
    x_t.push_back(random({batch, 3, side, side}, 200 + i));
  }
  return x_t;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(UNet, ARowDoesNotDependOnItsNeighboursOrTheirPadding) {
  const c10::NoGradGuard no_grad;
  for (const ModelConfig& config : {plain(false), plain(true), nested()}) {
    const auto model = build(config);
    const std::vector<int64_t> tokens = {3, 7, 1, 5}, attended = {4, 7, 7, 5};
    const TextEmbedding all = text_of(tokens, attended, 9);
    const at::Tensor times = at::tensor({0, 10, 500, 999}, at::kLong);
    const std::vector<at::Tensor> x_t = inputs_of(*model, 4);
    const auto together = model->forward(x_t, times, model->condition(&all, {}, 4));
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t length = attended[static_cast<size_t>(i)];
      TextEmbedding one;
      one.lm_outputs = all.lm_outputs.narrow(0, i, 1).narrow(1, 0, length);
      one.lm_mask = all.lm_mask.narrow(0, i, 1).narrow(1, 0, length);
      std::vector<at::Tensor> x;
      for (const at::Tensor& level : x_t) x.push_back(level.narrow(0, i, 1));
      const auto alone = model->forward(x, times.narrow(0, i, 1), model->condition(&one, {}, 1));
      for (size_t level = 0; level < alone.size(); ++level) {
        EXPECT_LT(largest_difference(together[level].narrow(0, i, 1), alone[level]), 2e-5);
      }
    }
  }
}

TEST(UNet, PaddingIsVisibleInsideTheRowsOwnLengthOnly) {
  const c10::NoGradGuard no_grad;
  const auto model = build(plain(false));
  const auto x_t = inputs_of(*model, 1);
  const at::Tensor times = at::zeros({1}, at::kLong);
  const auto run = [&](int64_t attended) {
    const TextEmbedding text = text_of({3}, {attended}, 12);
    return model->forward(x_t, times, model->condition(&text, {}, 1))[0];
  };
  EXPECT_GT(largest_difference(run(3), run(12)), 1e-3);  // the shipped models attend to padding
  EXPECT_EQ(largest_difference(run(6), run(6)), 0);
}

TEST(UNet, RowsOfAConditioningEqualTheConditioningOfTheRows) {
  const c10::NoGradGuard no_grad;
  const auto model = build(nested());
  const TextEmbedding text = text_of({3, 7, 5}, {3, 7, 5}, 7);
  const at::Tensor times = at::tensor({1, 2, 3}, at::kLong);
  const auto x_t = inputs_of(*model, 3);
  const MicroValues micros = {{"scale", at::tensor({4.0F, 8.0F, 16.0F})}};
  const Conditioning whole = model->condition(&text, micros, 3);
  const auto all = model->forward(x_t, times, whole);
  std::vector<at::Tensor> part;
  for (const at::Tensor& level : x_t) part.push_back(level.narrow(0, 1, 2));
  const auto some = model->forward(part, times.narrow(0, 1, 2), whole.rows(1, 2));
  for (size_t i = 0; i < all.size(); ++i) EXPECT_LT(largest_difference(all[i].narrow(0, 1, 2), some[i]), 2e-5);
}

TEST(UNet, PackedWeightsComputeTheSame) {
  const c10::NoGradGuard no_grad;
  for (const ModelConfig& config : {plain(), nested()}) {
    const auto model = build(config);
    const TextEmbedding text = text_of({3, 7}, {7, 7}, 7);
    const Conditioning conditioning = model->condition(&text, {}, 2);
    const at::Tensor times = at::tensor({3, 900}, at::kLong);
    const auto x_t = inputs_of(*model, 2);
    const auto expected = model->forward(x_t, times, conditioning);
    model->pack(2, x_t[0].size(2), x_t[0].size(3));
    const auto actual = model->forward(x_t, times, conditioning);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_LT(largest_difference(actual[i], expected[i]), 2e-5);
  }
}

TEST(UNet, Bfloat16StaysNearFloat32) {
  const c10::NoGradGuard no_grad;
  const auto model = build(nested());
  const TextEmbedding text = text_of({3, 7}, {7, 7}, 7);
  const at::Tensor times = at::tensor({3, 900}, at::kLong);
  const auto x_t = inputs_of(*model, 2);
  const auto expected = model->forward(x_t, times, model->condition(&text, {}, 2));
  const auto narrow = make_model(nested(), kTextWidth, {at::kBFloat16, /*channels_last=*/true});
  narrow->eval();
  for (auto& item : narrow->named_parameters()) item.value().copy_(*model->named_parameters().find(item.key()));
  const auto actual = narrow->forward(x_t, times, narrow->condition(&text, {}, 2));
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].scalar_type(), at::kFloat);
    EXPECT_LT(largest_difference(actual[i], expected[i]), 0.05 * expected[i].abs().max().item<double>());
  }
}

class AttentionWeights : public Probe {
 public:
  bool wants(const std::string& name) override { return name.find("text_weights") != std::string::npos; }
  void on_tensor(const std::string& name, const at::Tensor& value) override { seen[name] = value; }
  std::map<std::string, at::Tensor> seen;
};

TEST(UNet, AProbeSeesWhereThePictureLooksInTheText) {
  const c10::NoGradGuard no_grad;
  const auto model = build(nested());
  const TextEmbedding text = text_of({3, 7}, {4, 7}, 7);
  AttentionWeights probe;
  ForwardContext context;
  context.probe = &probe;
  const auto x_t = inputs_of(*model, 2);
  const Conditioning conditioning = model->condition(&text, {}, 2);
  const auto with = model->forward(x_t, at::zeros({2}, at::kLong), conditioning, context);
  const auto without = model->forward(x_t, at::zeros({2}, at::kLong), conditioning);
  EXPECT_TRUE(with[0].equal(without[0]));
  ASSERT_EQ(probe.seen.size(), 4U);  // one on the way down, one in the middle, two on the way up
  for (const auto& [name, weights] : probe.seen) {
    EXPECT_EQ(name.substr(0, 2), "1.") << name;
    EXPECT_EQ(weights.sizes(), at::IntArrayRef({2, 8, 16, 7})) << name;
    EXPECT_LT((weights.sum(-1) - 1).abs().max().item<float>(), 1e-5F);
    EXPECT_EQ(weights[0].narrow(2, 4, 3).abs().max().item<float>(), 0.0F);
  }
}

TEST(UNet, SkipInnerInputRunsTheInnerLevelOnTheImageAlone) {
  const c10::NoGradGuard no_grad;
  ModelConfig config = nested();
  config.levels[0].skip_inner_unet_input = true;
  const auto model = build(config);
  EXPECT_EQ(model->named_parameters().find("in_adapter.weight"), nullptr);
  const TextEmbedding text = text_of({3, 7}, {7, 7}, 7);
  auto x_t = inputs_of(*model, 2);
  const Conditioning conditioning = model->condition(&text, {}, 2);
  const auto before = model->forward(x_t, at::zeros({2}, at::kLong), conditioning);
  x_t[0] = x_t[0] + 1;
  const auto after = model->forward(x_t, at::zeros({2}, at::kLong), conditioning);
  EXPECT_TRUE(before[1].equal(after[1]));
  EXPECT_FALSE(before[0].equal(after[0]));
}

TEST(UNet, ACaptionWithoutTokensIsDefined) {
  const c10::NoGradGuard no_grad;
  for (const bool masked : {false, true}) {
    const auto model = build(plain(masked));
    const TextEmbedding text = text_of({0, 4}, {4, 4}, 4);
    const auto out = model->forward(inputs_of(*model, 2), at::zeros({2}, at::kLong), model->condition(&text, {}, 2));
    EXPECT_TRUE(out[0].isfinite().all().item<bool>());
  }
}

TEST(UNet, MisuseIsATypedError) {
  const auto model = build(nested());
  const TextEmbedding text = text_of({3}, {3}, 3);
  EXPECT_THROW(model->condition(nullptr, {}, 1), Error);
  EXPECT_THROW(model->condition(&text, {}, 2), Error);
  EXPECT_THROW(model->condition(&text, {{"scale", at::ones({3})}}, 1), Error);
  TextEmbedding wide = text;
  wide.lm_outputs = at::zeros({1, 3, kTextWidth + 8});
  EXPECT_THROW(model->condition(&wide, {}, 1), Error);
  const Conditioning conditioning = model->condition(&text, {}, 1);
  EXPECT_THROW(model->forward({at::zeros({1, 3, 16, 16})}, at::zeros({1}, at::kLong), conditioning), Error);
}

TEST(UNet, DropoutNeedsItsSourceInTrainingOnly) {
  ModelConfig config = plain();
  config.levels[0].resnet_config.dropout = 0.3;
  const auto model = build(config);
  const TextEmbedding text = text_of({3, 3}, {3, 3}, 3);
  const auto x_t = inputs_of(*model, 2);
  const at::Tensor times = at::zeros({2}, at::kLong);
  const Conditioning conditioning = model->condition(&text, {}, 2);
  EXPECT_NO_THROW(model->forward(x_t, times, conditioning));
  model->train();
  EXPECT_THROW(model->forward(x_t, times, conditioning), Error);
  ops::DropoutSource source;
  source.samples = {0, 1};
  ForwardContext context;
  context.dropout = &source;
  const auto first = model->forward(x_t, times, conditioning, context);
  EXPECT_TRUE(first[0].equal(model->forward(x_t, times, conditioning, context)[0]));
  source.address.step = 1;
  EXPECT_FALSE(first[0].equal(model->forward(x_t, times, conditioning, context)[0]));
}

}  // namespace
}  // namespace mdm
