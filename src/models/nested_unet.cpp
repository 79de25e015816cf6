// A level that holds another one.
#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>

#include "mdm/core/error.h"
#include "mdm/models/unet.h"

namespace mdm {

NestedUNet::NestedUNet(const std::vector<ResolvedUNetConfig>& levels, size_t level, const std::vector<int64_t>& scales,
                       int64_t in_channels, int64_t out_channels)
    : UNet(levels, level, scales, in_channels, out_channels) {
  const UNetConfig& config = config_.config;
  if (level + 2 < levels.size()) {
    inner_ = std::make_shared<NestedUNet>(levels, level + 1, scales, in_channels, out_channels);
  } else {
    inner_ = std::make_shared<UNet>(levels, level + 1, scales, in_channels, out_channels);
  }
  register_module("inner_unet", inner_);
  const int64_t own = config.resolution_channels.back();
  const int64_t inside = levels[level + 1].config.resolution_channels.front();
  if (!config.skip_inner_unet_input) {
    in_adapter_ = register_module("in_adapter", std::make_shared<Conv2d>(own, inside, 3, 1, 1));
  }
  out_adapter_ = register_module("out_adapter", std::make_shared<Conv2d>(inside, own, 3, 1, 1));
  if (config.interp_conditioning) {  // never used in the reference, but part of its checkpoints
    const int64_t width = *config.temporal_dim;
    interp_layer1_ = register_module("interp_layer1", std::make_shared<Linear>(width / 4, width));
    interp_layer2_ = register_module("interp_layer2", std::make_shared<Linear>(width, width));
  }
  if (config.freeze_inner_unet) {
    for (at::Tensor& parameter : inner_->parameters()) parameter.set_requires_grad(false);
  }
}

UNet::Text NestedUNet::read_text(const TextEmbedding& text) const {
  // The innermost level reads the text for all of them; it gets what this level's width says.
  return inner_->read_text(text);
}

void NestedUNet::append_conditioning(const at::Tensor& text, const MicroValues& micros, int64_t batch,
                                     Conditioning& out) const {
  UNet::append_conditioning(text, micros, batch, out);
  inner_->append_conditioning(text, micros, batch, out);
}

std::pair<std::vector<at::Tensor>, at::Tensor> NestedUNet::denoise(const std::vector<at::Tensor>& x_t,
                                                                   const at::Tensor& features, const at::Tensor& times,
                                                                   const Conditioning& conditioning,
                                                                   const ForwardContext& context) const {
  const int64_t rows = x_t[0].size(0), inner_rows = x_t[1].size(0);
  if (rows == 0) {  // a slice of a mixed batch without this level
    auto [predictions, last] = inner_->denoise({x_t.begin() + 1, x_t.end()}, {}, times, conditioning, context);
    predictions.insert(predictions.begin(), x_t[0].to(at::kFloat));
    return {std::move(predictions), {}};
  }
  if (rows > inner_rows)
    fail("a level's batch (", rows, ") is larger than that of the level inside it (", inner_rows, ")");
  StageInputs in = stage_inputs(times, rows, conditioning, context);
  const Conditioning own = rows < times.size(0) ? conditioning.rows(0, rows) : conditioning;
  if (in.keys_values != nullptr) in.keys_values = &own.keys_values.at(level_);
  in.mask = own.mask;

  at::Tensor x = input_layer(x_t[0], !config_.config.skip_normalization);
  show(context, "conv_in", x);
  if (features.defined()) x = x + features;
  std::vector<at::Tensor> skips;
  x = down(std::move(x), in, skips);

  at::Tensor inner_features;
  if (in_adapter_) {
    inner_features = in_adapter_->forward(x);
    if (rows < inner_rows) {  // samples without this level hand nothing down
      inner_features = at::constant_pad_nd(inner_features, {0, 0, 0, 0, 0, 0, 0, inner_rows - rows});
    }
  }
  auto [predictions, inner_last] =
      inner_->denoise({x_t.begin() + 1, x_t.end()}, inner_features, times, conditioning, context);
  x = out_adapter_->forward_plus(inner_last.narrow(0, 0, rows), x);

  x = up(std::move(x), in, skips);
  predictions.insert(predictions.begin(), output_layer(x));
  return {std::move(predictions), x};
}

void NestedUNet::init(const ModelInit& how) {
  init_layers(how);
  inner_->init(how);
  if (in_adapter_) in_adapter_->init(how.generator, how.zeroed);
  out_adapter_->init(how.generator, how.zeroed);
  if (interp_layer1_) {
    interp_layer1_->init(how.generator);
    interp_layer2_->init(how.generator);
  }
}

void NestedUNet::set_gradient_checkpointing(const std::vector<bool>& on_levels) {
  UNet::set_gradient_checkpointing(on_levels);
  inner_->set_gradient_checkpointing(std::vector<bool>(on_levels.begin() + 1, on_levels.end()));
}

void NestedUNet::append_unused(bool prediction_counts, bool inner_predictions, std::vector<at::Tensor>& out) const {
  UNet::append_unused(prediction_counts, inner_predictions, out);
  append_text_reading(out);
  for (const auto& layer : {interp_layer1_, interp_layer2_}) {
    if (layer) out.insert(out.end(), {layer->weight, layer->bias});
  }
  inner_->append_unused(inner_predictions, inner_predictions, out);
}

void NestedUNet::pack(int64_t batch, int64_t height, int64_t width) {
  if (config_.config.temporal_mode) fail("weights of a model in temporal mode can't be packed");
  pack_down(batch, height, width);
  if (in_adapter_) in_adapter_->pack({batch, config_.config.resolution_channels.back(), height, width});
  out_adapter_->pack({batch, inner_->config().config.resolution_channels.front(), height, width});
  inner_->pack(batch, height, width);
  pack_up(batch, height, width);
}

}  // namespace mdm
