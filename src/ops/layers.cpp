#include "mdm/ops/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/ops/normalization.h"
#include "ops/onednn.h"
#include "ops/plain_convolution.h"
#include "ops/upsampled_convolution.h"
#include "ops/winograd_cpu.h"

namespace mdm {
namespace {

constexpr double kLayerNormEpsilon = 1e-5;

// PyTorch's default initialisation of Linear and Conv (kaiming_uniform with a = sqrt(5), then the bias):
// both uniform within 1/sqrt(fan_in), written as PyTorch computes it so that the bits agree.
void init_default(at::Tensor& weight, at::Tensor& bias, const at::Generator& generator, LayerInit how) {
  const c10::NoGradGuard no_grad;
  const double fan_in = static_cast<double>(weight.numel() / weight.size(0));
  const double gain = std::sqrt(2.0 / (1.0 + 5.0));
  const double weight_bound = std::sqrt(3.0) * (gain / std::sqrt(fan_in));
  weight.uniform_(-weight_bound, weight_bound, generator);
  if (bias.defined()) {
    const double bias_bound = 1.0 / std::sqrt(fan_in);
    bias.uniform_(-bias_bound, bias_bound, generator);
  }
  if (how == LayerInit::kDefault) return;
  if (how == LayerInit::kZero) {
    weight.zero_();
  } else {
    weight.normal_(0.0, 0.6 / std::sqrt(fan_in), generator);
  }
  if (bias.defined()) bias.zero_();
}

void init_norm(at::Tensor& weight, at::Tensor& bias) {
  const c10::NoGradGuard no_grad;
  weight.fill_(1);
  bias.zero_();
}

}  // namespace

Linear::Linear(int64_t in_features, int64_t out_features, bool with_bias)
    : weight(register_parameter("weight", at::empty({out_features, in_features}))) {
  if (with_bias) bias = register_parameter("bias", at::empty({out_features}));
}

at::Tensor Linear::forward(const at::Tensor& x) const { return at::linear(x, weight, bias); }

void Linear::init(at::Generator generator, LayerInit how) { init_default(weight, bias, generator, how); }

Conv2d::Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride, int64_t padding)
    : weight(register_parameter("weight", at::empty({out_channels, in_channels, kernel, kernel}))),
      bias(register_parameter("bias", at::empty({out_channels}))),
      stride_{stride, stride},
      padding_{padding, padding} {}

at::Tensor Conv2d::forward(const at::Tensor& x) const {
  check_packed_for_plain_inputs();
  if (winograd_) return winograd_->forward(x, bias);
  if (packed_.defined()) return ops::onednn::convolution(x, packed_, bias, padding_, stride_);
  return ops::plain_convolution(x, weight, bias, stride_, padding_);
}

at::Tensor Conv2d::forward(const ops::Recomputable& x) const {
  return records_gradients() ? ops::plain_convolution(x, weight, bias, stride_, padding_) : forward(x.value());
}

at::Tensor Conv2d::forward_onto(at::Tensor added, const ops::Recomputable& x) const {
  return records_gradients() ? forward(x) + added : forward_onto(std::move(added), x.value());
}

at::Tensor Conv2d::forward_onto(at::Tensor added, const at::Tensor& x) const {
  if (!packed_.defined()) return forward_plus(x, added);
  check_packed_for_plain_inputs();
  ops::onednn::add_convolution(added, x, packed_, bias, padding_, stride_);
  return added;
}

at::Tensor Conv2d::forward_plus(const ops::Recomputable& x, const at::Tensor& added) const {
  return records_gradients() ? forward(x) + added : forward_plus(x.value(), added);
}

at::Tensor Conv2d::forward_plus(const at::Tensor& x, const at::Tensor& added) const {
  if (winograd_) return winograd_->forward(x, bias, added);
  if (packed_.defined()) return forward(x).add_(added);
  return forward(x) + added;
}

ops::Recomputable Conv2d::forward_gelu(const ops::Recomputable& x) const {
  if (packed_.defined()) {
    check_packed_for_plain_inputs();
    return ops::Recomputable(
        ops::onednn::convolution(x.value(), packed_, bias, padding_, stride_, ops::onednn::After::kGelu));
  }
  return {[](at::TensorList t) { return at::gelu(t[0]); }, {forward(x)}};
}

at::Tensor Conv2d::forward_joined(const at::Tensor& x, const at::Tensor& rest) const {
  if (!packed_rest_.defined()) {
    return forward(ops::Recomputable{[](at::TensorList t) { return at::cat(t, 1); }, {x, rest}});
  }
  at::Tensor sum = ops::onednn::convolution(x, packed_, bias, padding_, stride_);
  ops::onednn::add_convolution(sum, rest, packed_rest_, {}, padding_, stride_);
  return sum;
}

at::Tensor Conv2d::forward_upsampled(const at::Tensor& x) const {
  if (winograd_upsampled_) return winograd_upsampled_->forward(x, bias);
  if (upsampled_) return upsampled_->forward(x);
  const auto twice = [](at::TensorList t) {
    return at::upsample_nearest2d(t[0], {2 * t[0].size(2), 2 * t[0].size(3)});
  };
  return forward(ops::Recomputable{twice, {x}});
}

bool Conv2d::records_gradients() const { return c10::GradMode::is_enabled() && weight.numel() > 0; }

void Conv2d::init(at::Generator generator, LayerInit how) { init_default(weight, bias, generator, how); }

void Conv2d::pack(at::IntArrayRef input_size) {
  const c10::NoGradGuard no_grad;
  const bool same_size = stride_[0] == 1 && padding_[0] == 1;
  if (same_size && ops::WinogradConvolution::suits(weight, input_size, /*upsampled=*/false)) {
    winograd_ = std::make_shared<ops::WinogradConvolution>(weight.detach(), input_size, false);
  } else {
    packed_ = ops::onednn::pack_convolution(weight.detach(), padding_, stride_, input_size);
  }
  drop_plain_weight();
}

void Conv2d::pack_upsampled(at::IntArrayRef input_size) {
  const c10::NoGradGuard no_grad;
  if (ops::WinogradConvolution::suits(weight, input_size, /*upsampled=*/true)) {
    winograd_upsampled_ = std::make_shared<ops::WinogradConvolution>(weight.detach(), input_size, true);
  } else {
    upsampled_ = std::make_shared<ops::UpsampledConvolution>(weight, bias, input_size);
  }
  drop_plain_weight();
}

void Conv2d::pack_joined(at::IntArrayRef input_size, int64_t first_channels) {
  const c10::NoGradGuard no_grad;
  const int64_t rest = weight.size(1) - first_channels;
  const auto packed_part = [&](int64_t first, int64_t count) {
    return ops::onednn::pack_convolution(weight.detach().narrow(1, first, count).contiguous(), padding_, stride_,
                                         {input_size[0], count, input_size[2], input_size[3]});
  };
  packed_ = packed_part(0, first_channels);
  packed_rest_ = packed_part(first_channels, rest);
  drop_plain_weight();
}

// A program's mistake that would otherwise give wrong numbers, not an error.
void Conv2d::check_packed_for_plain_inputs() const {
  if (packed_rest_.defined()) fail<Error>("a convolution that was packed for joined inputs got another");
  if (winograd_upsampled_ || upsampled_) fail<Error>("a convolution that was packed for upsampled inputs got another");
}

void Conv2d::drop_plain_weight() { weight.set_data(at::empty({0}, weight.options())); }

Conv1d::Conv1d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride, int64_t padding)
    : weight(register_parameter("weight", at::empty({out_channels, in_channels, kernel}))),
      bias(register_parameter("bias", at::empty({out_channels}))),
      stride_(stride),
      padding_(padding) {}

at::Tensor Conv1d::forward(const at::Tensor& x) const { return at::conv1d(x, weight, bias, stride_, padding_); }

void Conv1d::init(at::Generator generator, LayerInit how) { init_default(weight, bias, generator, how); }

GroupNorm::GroupNorm(int64_t groups, int64_t channels)
    : weight(register_parameter("weight", at::empty({channels}))),
      bias(register_parameter("bias", at::empty({channels}))),
      groups_(groups) {}

ops::Recomputable GroupNorm::of(const at::Tensor& x) const {
  return {[groups = groups_](at::TensorList t) {
            return ops::group_norm(t[0], groups, t[1], t[2], {}, {}, /*silu=*/false);
          },
          {x, weight, bias}};
}

ops::Recomputable GroupNorm::silu_of(const at::Tensor& x) const {
  return {
      [groups = groups_](at::TensorList t) { return ops::group_norm(t[0], groups, t[1], t[2], {}, {}, /*silu=*/true); },
      {x, weight, bias}};
}

ops::Recomputable GroupNorm::silu_of(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift) const {
  return {[groups = groups_](at::TensorList t) {
            return ops::group_norm(t[0], groups, t[1], t[2], t[3], t[4], /*silu=*/true);
          },
          {x, weight, bias, scale, shift}};
}

ops::Recomputable GroupNorm::silu_of_joined(const at::Tensor& x, const at::Tensor& rest) const {
  return {[groups = groups_](at::TensorList t) {
            return ops::group_norm_of_joined(t[0], t[1], groups, t[2], t[3], /*silu=*/true);
          },
          {x, rest, weight, bias}};
}

void GroupNorm::init() { init_norm(weight, bias); }

LayerNorm::LayerNorm(int64_t features)
    : weight(register_parameter("weight", at::empty({features}))),
      bias(register_parameter("bias", at::empty({features}))) {}

at::Tensor LayerNorm::forward(const at::Tensor& x) const {
  return at::layer_norm(x, {weight.size(0)}, weight, bias, kLayerNormEpsilon);
}

void LayerNorm::init() { init_norm(weight, bias); }

}  // namespace mdm
