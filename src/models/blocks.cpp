// Residual blocks and attention layers.
#include "mdm/models/blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <utility>

#include "mdm/core/error.h"

namespace mdm {
namespace {

constexpr int64_t kAttentionHeads = 8;
constexpr int64_t kAttentionNormGroups = 32;
constexpr int64_t kTemporalHeadChannels = 32;

// (B, C, H, W) -> (B, H W, C); a view when x is channels_last.
at::Tensor positions_last(const at::Tensor& x) {
  return x.permute({0, 2, 3, 1}).reshape({x.size(0), x.size(2) * x.size(3), x.size(1)});
}

// (B, H W, C) -> (B, C, H, W), channels_last.
at::Tensor as_image(const at::Tensor& x, int64_t height, int64_t width) {
  return x.view({x.size(0), height, width, x.size(2)}).permute({0, 3, 1, 2});
}

}  // namespace

ResNet::ResNet(int64_t temporal_dim, const ResNetConfig& config)
    : in_channels_(config.num_channels), out_channels_(config.output_channels), dropout_(config.dropout) {
  norm1_ = register_module("norm1", std::make_shared<GroupNorm>(config.num_groups_norm, in_channels_));
  conv1_ = register_module("conv1", std::make_shared<Conv2d>(in_channels_, out_channels_, 3, 1, 1));
  time_layer_ = register_module("time_layer", std::make_shared<Linear>(temporal_dim, 2 * out_channels_));
  norm2_ = register_module("norm2", std::make_shared<GroupNorm>(config.num_groups_norm, out_channels_));
  conv2_ = register_module("conv2", std::make_shared<Conv2d>(out_channels_, out_channels_, 3, 1, 1));
  if (in_channels_ != out_channels_) {
    conv3_ = register_module("conv3", std::make_shared<Conv2d>(in_channels_, out_channels_, 1));
  }
}

at::Tensor ResNet::forward(const at::Tensor& x, const at::Tensor& skip, const StageInputs& in, uint32_t layer) const {
  // On a GPU norms have no kernel for two tensors: it would join them in the forward pass, too, and twice.
  const bool apart = skip.defined() && conv3_ && x.is_cpu();
  const at::Tensor input = skip.defined() && !apart ? at::cat({x, skip}, 1) : x;
  at::Tensor h = conv1_->forward(apart ? norm1_->silu_of_joined(x, skip) : norm1_->silu_of(input));
  at::Tensor modulation = time_layer_->forward(in.temb);  // (B, 2 C_out)
  if (h.size(0) > modulation.size(0)) {                   // frames of a picture share its time
    modulation = modulation.repeat_interleave(h.size(0) / modulation.size(0), 0);
  }
  const auto parts = modulation.chunk(2, 1);
  ops::Recomputable active = norm2_->silu_of(h, parts[0], parts[1]);
  h.reset();  // `active` has it where it needs it
  if (dropout_ > 0 && is_training()) {
    if (in.context == nullptr || in.context->dropout == nullptr) {
      fail("the model has dropout: a forward pass in training needs ForwardContext::dropout");
    }
    active = {[make = active.maker(), p = dropout_, source = *in.context->dropout, layer,
               rows = in.temb.size(0)](at::TensorList t) { return ops::dropout(make(t), p, source, layer, rows); },
              active.from()};
  }
  if (!conv3_) return conv2_->forward_plus(active, input);
  return conv2_->forward_onto(apart ? conv3_->forward_joined(x, skip) : conv3_->forward(input), active);
}

void ResNet::init(const ModelInit& how) {
  norm1_->init();
  conv1_->init(how.generator);
  time_layer_->init(how.generator);
  norm2_->init();
  conv2_->init(how.generator, how.zeroed);
  if (conv3_) conv3_->init(how.generator);
}

void ResNet::pack(at::IntArrayRef input_size, int64_t skip_channels) {
  const std::vector<int64_t> inner = {input_size[0], out_channels_, input_size[2], input_size[3]};
  conv1_->pack(input_size);
  conv2_->pack(inner);
  if (conv3_ && skip_channels > 0) {
    conv3_->pack_joined(input_size, in_channels_ - skip_channels);
  } else if (conv3_) {
    conv3_->pack(input_size);
  }
}

SelfAttention::SelfAttention(int64_t channels, int64_t text_dim, bool with_ffn) : channels_(channels) {
  norm_ = register_module("norm", std::make_shared<GroupNorm>(kAttentionNormGroups, channels));
  qkv_ = register_module("qkv", std::make_shared<Conv2d>(channels, 3 * channels, 1));
  if (text_dim > 0) {
    norm_cond_ = register_module("norm_cond", std::make_shared<LayerNorm>(text_dim));
    kv_cond_ = register_module("kv_cond", std::make_shared<Linear>(text_dim, 2 * channels));
  }
  proj_out_ = register_module("proj_out", std::make_shared<Conv2d>(channels, channels, 1));
  if (!with_ffn) return;
  ffn_ = register_module("ffn", std::make_shared<ModuleList>());
  ffn_norm_ = ffn_->add(std::make_shared<GroupNorm>(kAttentionNormGroups, channels));
  ffn_in_ = ffn_->add(std::make_shared<Conv2d>(channels, 4 * channels, 1));
  ffn_->skip();  // GELU
  ffn_out_ = ffn_->add(std::make_shared<Conv2d>(4 * channels, channels, 1));
}

ops::KeyValue SelfAttention::key_value(const at::Tensor& text) const {
  const at::Tensor kv = kv_cond_->forward(norm_cond_->forward(text));  // (B, L, 2 C)
  const auto parts = kv.view({kv.size(0), kv.size(1), 2, kAttentionHeads, channels_ / kAttentionHeads})
                         .permute({2, 0, 3, 1, 4})
                         .unbind(0);
  return {parts[0], parts[1]};
}

at::Tensor SelfAttention::forward(at::Tensor x, const ops::KeyValue* text, const StageInputs& in,
                                  const std::string& name) const {
  const at::Tensor qkv = positions_last(qkv_->forward(norm_->of(x)));  // (B, N, 3 C)
  if (text != nullptr && in.context->probe != nullptr && in.context->probe->wants(name + ".text_weights")) {
    const at::Tensor q =
        qkv.narrow(2, 0, channels_).view({qkv.size(0), qkv.size(1), kAttentionHeads, -1}).transpose(1, 2);
    at::Tensor scores = at::matmul(q, text->key.transpose(2, 3)).to(at::kFloat) /
                        std::sqrt(static_cast<double>(channels_ / kAttentionHeads));
    if (in.mask.defined()) scores.masked_fill_(in.mask.logical_not().unsqueeze(1).unsqueeze(1), -1e30);
    in.context->probe->on_tensor(name + ".text_weights", at::softmax(scores, -1));
  }
  const at::Tensor attended = ops::attention(qkv, kAttentionHeads, text, in.mask);
  const at::Tensor image = as_image(attended, x.size(2), x.size(3));
  const at::Tensor h = proj_out_->forward_onto(std::move(x), image);
  return ffn_ ? ffn_out_->forward_onto(h, ffn_in_->forward_gelu(ffn_norm_->of(h))) : h;
}

void SelfAttention::init(const ModelInit& how) {
  norm_->init();
  qkv_->init(how.generator);
  if (kv_cond_) {
    norm_cond_->init();
    kv_cond_->init(how.generator);
  }
  proj_out_->init(how.generator, how.zeroed);
  if (!ffn_) return;
  ffn_norm_->init();
  ffn_in_->init(how.generator);
  ffn_out_->init(how.generator, how.zeroed);
}

void SelfAttention::pack(at::IntArrayRef input_size) {
  qkv_->pack(input_size);
  proj_out_->pack(input_size);
  if (!ffn_) return;
  const std::vector<int64_t> wide = {input_size[0], 4 * channels_, input_size[2], input_size[3]};
  ffn_in_->pack(input_size);
  ffn_out_->pack(wide);
}

SequenceAttention::SequenceAttention(int64_t channels, int64_t heads) : heads_(heads) {
  const auto attn = register_module("attn", std::make_shared<torch::nn::Module>());
  norm_ = attn->register_module("norm", std::make_shared<LayerNorm>(channels));
  qkv_ = attn->register_module("qkv", std::make_shared<Linear>(channels, 3 * channels));
  proj_out_ = attn->register_module("proj_out", std::make_shared<Linear>(channels, channels));
  const auto mlp = register_module("mlp", std::make_shared<torch::nn::Module>());
  const auto main = mlp->register_module("main", std::make_shared<ModuleList>());
  mlp_norm_ = main->add(std::make_shared<LayerNorm>(channels));
  mlp_in_ = main->add(std::make_shared<Linear>(channels, 4 * channels));
  main->skip();  // GELU
  mlp_out_ = main->add(std::make_shared<Linear>(4 * channels, channels));
}

at::Tensor SequenceAttention::forward(const at::Tensor& x, const at::Tensor& mask) const {
  const int64_t channels = x.size(2);
  const at::Tensor qkv = qkv_->forward(norm_->forward(x));
  const auto parts = qkv.view({x.size(0), x.size(1), 3, heads_, channels / heads_}).permute({2, 0, 3, 1, 4}).unbind(0);
  const at::Tensor attended =
      ops::masked_attention(parts[0], parts[1], parts[2], mask).transpose(1, 2).reshape(x.sizes());
  const at::Tensor h = x + proj_out_->forward(attended);
  return h + mlp_out_->forward(at::gelu(mlp_in_->forward(mlp_norm_->forward(h))));
}

void SequenceAttention::init(const ModelInit& how) {
  norm_->init();
  qkv_->init(how.generator);
  proj_out_->init(how.generator, how.zeroed);
  mlp_norm_->init();
  mlp_in_->init(how.generator);
  mlp_out_->init(how.generator, how.zeroed);
}

TemporalAttention::TemporalAttention(int64_t channels) : SequenceAttention(channels, channels / kTemporalHeadChannels) {
  down_conv_ = register_module("down_conv", std::make_shared<Conv2d>(channels, channels, 3, 2, 1));
  up_conv_ = register_module("up_conv", std::make_shared<Conv2d>(channels, channels, 3, 1, 1));
}

at::Tensor TemporalAttention::forward_frames(const at::Tensor& x, int64_t batch) const {
  const at::Tensor low = down_conv_->forward(x);  // (B T, C, h, w)
  const int64_t frames = low.size(0) / batch;
  const int64_t channels = low.size(1), height = low.size(2), width = low.size(3);
  const at::Tensor sequences = low.reshape({batch, frames, channels, height, width})
                                   .permute({0, 3, 4, 1, 2})
                                   .reshape({batch * height * width, frames, channels});
  const at::Tensor mixed = SequenceAttention::forward(sequences, {})
                               .view({batch, height, width, frames, channels})
                               .permute({0, 3, 4, 1, 2})
                               .reshape({batch * frames, channels, height, width});
  return x + up_conv_->forward_upsampled(mixed);
}

void TemporalAttention::init(const ModelInit& how) {
  SequenceAttention::init(how);
  down_conv_->init(how.generator);
  up_conv_->init(how.generator);
}

}  // namespace mdm
