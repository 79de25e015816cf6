#include "mdm/ops/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "mdm/core/error.h"
#include "mdm/ops/normalization.h"
#include "ops/onednn.h"
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
  if (is_product(x)) {
    const at::Tensor rows = at::linear(x.permute({0, 2, 3, 1}), weight.view({weight.size(0), weight.size(1)}), bias);
    return rows.permute({0, 3, 1, 2});
  }
  return at::conv2d(x, weight, bias, stride_, padding_);
}

// A 1x1 convolution of channels_last images is a product of matrices, whose backward pass is faster where there are
// many channels and the numbers are bfloat16 (measured; in float32, or with few channels, it is not).
bool Conv2d::is_product(const at::Tensor& x) const {
  constexpr int64_t kLeastWeights = 1 << 18;
  return weight.size(2) == 1 && stride_[0] == 1 && padding_[0] == 0 && weight.numel() >= kLeastWeights &&
         x.scalar_type() == at::kBFloat16 && x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor Conv2d::forward_onto(at::Tensor added, const at::Tensor& x) const {
  if (!packed_.defined()) return forward_plus(x, added);
  check_packed_for_plain_inputs();
  ops::onednn::add_convolution(added, x, packed_, bias, padding_, stride_);
  return added;
}

at::Tensor Conv2d::forward_plus(const at::Tensor& x, const at::Tensor& added) const {
  if (winograd_) return winograd_->forward(x, bias, added);
  if (packed_.defined()) return forward(x).add_(added);
  return forward(x) + added;
}

at::Tensor Conv2d::forward_gelu(const at::Tensor& x) const {
  if (packed_.defined()) {
    check_packed_for_plain_inputs();
    return ops::onednn::convolution(x, packed_, bias, padding_, stride_, ops::onednn::After::kGelu);
  }
  return at::gelu(forward(x));
}

at::Tensor Conv2d::forward_joined(const at::Tensor& x, const at::Tensor& rest) const {
  if (!packed_rest_.defined()) return forward(at::cat({x, rest}, 1));
  at::Tensor sum = ops::onednn::convolution(x, packed_, bias, padding_, stride_);
  ops::onednn::add_convolution(sum, rest, packed_rest_, {}, padding_, stride_);
  return sum;
}

at::Tensor Conv2d::forward_upsampled(const at::Tensor& x) const {
  if (winograd_upsampled_) return winograd_upsampled_->forward(x, bias);
  if (upsampled_) return upsampled_->forward(x);
  return forward(at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}));
}

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

at::Tensor GroupNorm::forward(const at::Tensor& x) const {
  return ops::group_norm(x, groups_, weight, bias, {}, {}, /*silu=*/false);
}

at::Tensor GroupNorm::forward_silu(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift) const {
  return ops::group_norm(x, groups_, weight, bias, scale, shift, /*silu=*/true);
}

at::Tensor GroupNorm::forward_silu_joined(const at::Tensor& x, const at::Tensor& rest) const {
  return ops::group_norm_of_joined(x, rest, groups_, weight, bias, /*silu=*/true);
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
