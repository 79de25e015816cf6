// Gradients of a whole model on a GPU, with and without checkpointing, against the CPU's. Skipped where there is no
// GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "diffusion/test_model.h"

namespace mdm {
namespace {

using testing::kTextWidth;
using testing::random_tensor;
using testing::random_text;
using testing::tiny_config;

std::vector<at::Tensor> gradients_on(at::Device device, bool checkpointing) {
  ModelConfig config = tiny_config(2);
  for (UNetConfig& level : config.levels) {
    level.resolution_channels = {32, 64};
    level.attention_levels = {1};
    level.num_attention_layers = {0, 1};
  }
  ModelOptions options;
  options.channels_last = true;
  const auto model = make_model(config, kTextWidth, options);
  {
    const at::NoGradGuard no_grad;
    const at::Generator generator = make_generator(17);
    for (at::Tensor& parameter : model->parameters()) parameter.normal_(0, 0.1, generator);
  }
  model->to(device);
  model->set_gradient_checkpointing(checkpointing);
  TextEmbedding text = random_text(2);
  text.lm_outputs = text.lm_outputs.to(device);
  text.lm_mask = text.lm_mask.to(device);
  const Conditioning conditioning = model->condition(&text, {}, 2);
  const std::vector<at::Tensor> x_t = {random_tensor({2, 3, 16, 16}, 3).to(device),
                                       random_tensor({2, 3, 8, 8}, 4).to(device)};
  at::Tensor loss = at::zeros({}, at::TensorOptions().device(device));
  const ForwardContext context;
  for (const at::Tensor& y : model->forward(x_t, at::full({2}, 0.3F).to(device), conditioning, context)) {
    loss = loss + y.square().mean();
  }
  loss.backward();
  std::vector<at::Tensor> out;
  for (const at::Tensor& parameter : model->parameters()) {
    out.push_back(parameter.grad().defined() ? parameter.grad().cpu() : at::Tensor());
  }
  return out;
}

TEST(DeviceGradientsTest, AreThoseOfTheCpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU, or a build without CUDA";
  const auto expected = gradients_on(at::kCPU, false);
  for (const bool checkpointing : {false, true}) {
    const auto actual = gradients_on(at::Device(at::kCUDA, 0), checkpointing);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_EQ(actual[i].defined(), expected[i].defined()) << i;
      if (!actual[i].defined()) continue;
      EXPECT_LT((actual[i] - expected[i]).abs().max().item<float>(),
                2e-2F * expected[i].abs().max().item<float>() + 1e-6F)
          << i;
    }
  }
}

}  // namespace
}  // namespace mdm
