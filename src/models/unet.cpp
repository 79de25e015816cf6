// One level of the model: embeddings, stages, and the order in which they run.
#include "mdm/models/unet.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"
#include "models/recompute.h"

namespace mdm {
namespace {

constexpr int64_t kTextHeads = 8;

bool attends_at(const UNetConfig& config, size_t resolution) {
  return std::find(config.attention_levels.begin(), config.attention_levels.end(), static_cast<int64_t>(resolution)) !=
         config.attention_levels.end();
}

// (B, C, n h, n w) -> (B n n, C, h, w): the frames of a temporal model lie as tiles in one picture.
at::Tensor to_frames(const at::Tensor& x, int64_t per_side) {
  if (per_side == 1) return x;
  const int64_t height = x.size(2) / per_side, width = x.size(3) / per_side;
  return x.reshape({x.size(0), x.size(1), per_side, height, per_side, width})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({x.size(0) * per_side * per_side, x.size(1), height, width});
}

at::Tensor from_frames(const at::Tensor& x, int64_t per_side) {
  if (per_side == 1) return x;
  const int64_t batch = x.size(0) / (per_side * per_side);
  return x.reshape({batch, per_side, per_side, x.size(1), x.size(2), x.size(3)})
      .permute({0, 3, 1, 4, 2, 5})
      .reshape({batch, x.size(1), per_side * x.size(2), per_side * x.size(3)});
}

void append_parameters(const torch::nn::Module& module, std::vector<at::Tensor>& out) {
  for (const at::Tensor& parameter : module.parameters()) out.push_back(parameter);
}

// The stages of one level, in the order of the reference's constructor, with running counts of channels,
// skip connections, cross-attention layers and resnets.
struct StagePlan {
  const ResolvedUNetConfig& level;
  int64_t channels;
  std::vector<int64_t> skips;
  size_t text_layers = 0;
  uint32_t resnets;

  StagePlan(const ResolvedUNetConfig& source, size_t index)
      : level(source),
        channels(source.config.resolution_channels[0]),
        skips{channels},
        resnets(static_cast<uint32_t>(index) << 16) {}

  Stage::Options base() const {
    Stage::Options options;
    options.temporal_dim = *level.config.temporal_dim;
    options.first_text_layer = text_layers;
    options.first_resnet = resnets;
    return options;
  }

  ResNetConfig resnet(int64_t in, int64_t out) const {
    ResNetConfig config = level.config.resnet_config;
    config.num_channels = in;
    config.output_channels = out;
    return config;
  }

  void add_level_options(Stage::Options& options, size_t i) const {
    const UNetConfig& config = level.config;
    if (attends_at(config, i)) {
      options.attention_layers = config.num_attention_layers[i];
      options.text_dim = level.conditioning_dim;
    }
    if (config.num_temporal_attention_layers && !config.temporal_spatial_ds) {
      options.temporal_layers = (*config.num_temporal_attention_layers)[i];
    }
    options.over_frames = config.temporal_mode && !config.temporal_spatial_ds;
  }

  std::shared_ptr<Stage> build(const Stage::Options& options) {
    auto stage = std::make_shared<Stage>(options);
    text_layers += stage->text_layers();
    resnets += static_cast<uint32_t>(options.resnets.size());
    return stage;
  }

  std::shared_ptr<Stage> down(size_t i) {
    const UNetConfig& config = level.config;
    Stage::Options options = base();
    for (int64_t j = 0; j < config.num_resnets_per_resolution[i]; ++j) {
      options.resnets.push_back(resnet(channels, config.resolution_channels[i]));
      channels = config.resolution_channels[i];
      skips.push_back(channels);
    }
    if (i + 1 < config.resolution_channels.size()) {
      options.resample = Resample::kDown;
      skips.push_back(channels);
    }
    add_level_options(options, i);
    return build(options);
  }

  std::shared_ptr<Stage> mid(bool with_attention) {
    Stage::Options options = base();
    options.resnets.push_back(resnet(channels, channels));
    if (with_attention) {
      options.attention_layers = 1;
      options.text_dim = level.conditioning_dim;
    }
    return build(options);
  }

  std::shared_ptr<Stage> up(size_t i) {
    const UNetConfig& config = level.config;
    Stage::Options options = base();
    for (int64_t j = 0; j <= config.num_resnets_per_resolution[i]; ++j) {
      options.resnets.push_back(resnet(channels + skips.back(), config.resolution_channels[i]));
      options.skip_channels.push_back(skips.back());
      skips.pop_back();
      channels = config.resolution_channels[i];
    }
    if (i != 0) options.resample = Resample::kUp;
    add_level_options(options, i);
    return build(options);
  }
};

}  // namespace

UNet::UNet(const std::vector<ResolvedUNetConfig>& levels, size_t level, const std::vector<int64_t>& scales,
           int64_t in_channels, int64_t out_channels)
    : config_(levels.at(level)), level_(level), in_channels_(in_channels) {
  const UNetConfig& config = config_.config;
  const int64_t width = *config.temporal_dim;
  if (config.temporal_mode) {
    inner_frames_ = level + 1 < scales.size() ? scales[level + 1] : 1;
    outer_frames_ = config.temporal_spatial_ds ? inner_frames_ : scales[level];
  }
  const bool reads_text = config_.conditioning_dim > 0 && !config.skip_cond_emb;

  // Registered in the order of the reference's state_dict, which is not its order of construction.
  temb_layer1_ = register_module("temb_layer1", std::make_shared<Linear>(width / 4, width));
  temb_layer2_ = register_module("temb_layer2", std::make_shared<Linear>(width, width));
  if (reads_text) {
    cond_emb_ = register_module("cond_emb", std::make_shared<Linear>(config_.conditioning_dim, width, false));
  }
  if (!config_.micros.empty()) {
    const auto layers = register_module("cond_layers", std::make_shared<torch::nn::Module>());
    for (const MicroCondition& item : config_.micros) {
      const auto pair = layers->register_module(item.name, std::make_shared<ModuleList>());
      auto first = pair->add(std::make_shared<Linear>(width / 4, width));
      auto second = pair->add(std::make_shared<Linear>(width, width));
      micro_layers_.emplace_back(std::move(first), std::move(second));
    }
  }
  const auto& widths = config.resolution_channels;
  conv_in_ = register_module("conv_in", std::make_shared<Conv2d>(in_channels, widths[0], 3, 1, 1));
  norm_out_ = register_module("norm_out", std::make_shared<GroupNorm>(config.resnet_config.num_groups_norm, widths[0]));
  conv_out_ = register_module("conv_out", std::make_shared<Conv2d>(widths[0], out_channels, 3, 1, 1));

  StagePlan plan(config_, level);
  const auto down_list = register_module("down_blocks", std::make_shared<ModuleList>());
  for (size_t i = 0; i < widths.size(); ++i) down_blocks_.push_back(down_list->add(plan.down(i)));
  if (!config.skip_mid_blocks) {
    const auto mid_list = register_module("mid_blocks", std::make_shared<ModuleList>());
    mid_blocks_.push_back(mid_list->add(plan.mid(true)));
    mid_blocks_.push_back(mid_list->add(plan.mid(false)));
  }
  const auto up_list = register_module("up_blocks", std::make_shared<ModuleList>());
  for (size_t i = widths.size(); i-- > 0;) up_blocks_.push_back(up_list->add(plan.up(i)));

  if (!reads_text) return;
  if (config.conditioning_feature_proj_dim > 0) {
    lm_proj_ = register_module("lm_proj", std::make_shared<Linear>(config_.text_dim, config_.conditioning_dim));
  }
  const auto heads = register_module("lm_head", std::make_shared<ModuleList>());
  for (int64_t i = 0; i < config.num_lm_head_layers; ++i) {
    lm_head_.push_back(heads->add(std::make_shared<SequenceAttention>(config_.conditioning_dim, kTextHeads)));
  }
}

at::Tensor UNet::sinusoid(const at::Tensor& times) const {
  const int64_t half = *config_.config.temporal_dim / 8;
  const double step = std::log(10000.0) / static_cast<double>(half);
  const auto options = times.options().dtype(at::kFloat);
  const at::Tensor frequencies = at::exp(at::arange(half, options) * -step).unsqueeze(0);  // (1, T / 8)
  const at::Tensor angles = times.to(at::kFloat).view({-1, 1}) * frequencies;
  return at::cat({angles.sin(), angles.cos()}, 1).to(temb_layer1_->weight.scalar_type());  // (B, T / 4)
}

at::Tensor UNet::time_embedding(const at::Tensor& times) const {
  return temb_layer2_->forward(at::silu(temb_layer1_->forward(sinusoid(times))));
}

at::Tensor UNet::micro_embedding(const MicroValues& micros, int64_t batch) const {
  at::Tensor sum;
  for (size_t i = 0; i < config_.micros.size(); ++i) {
    const MicroCondition& item = config_.micros[i];
    const auto given = micros.find(item.name);
    at::Tensor value = given == micros.end()
                           ? at::full({batch}, item.default_value, temb_layer1_->weight.options().dtype(at::kFloat))
                           : given->second.to(temb_layer1_->weight.device(), at::kFloat);
    if (value.dim() != 1 || value.size(0) != batch) {
      fail("micro-conditioning '", printable(item.name), "' has ", value.numel(), " values for a batch of ", batch);
    }
    value = item.name == "scale" ? (value / item.default_value).clamp_max(1) * item.default_value : value * 1000;
    const at::Tensor embedded =
        micro_layers_[i].second->forward(at::silu(micro_layers_[i].first->forward(sinusoid(value))));
    sum = sum.defined() ? sum + embedded : embedded;
  }
  return sum;
}

UNet::Text UNet::read_text(const TextEmbedding& text) const {
  const auto dtype = conv_in_->bias.scalar_type();
  at::Tensor values = text.lm_outputs.to(conv_in_->bias.device(), dtype);  // (B, L, D)
  if (values.dim() != 3 || values.size(2) != config_.text_dim) {
    fail("the text's features are ", values.size(-1), " wide, the model expects ", config_.text_dim);
  }
  const int64_t batch = values.size(0), length = values.size(1);
  const at::Tensor tokens = text.lm_mask.defined() ? text.lm_mask.to(values.device(), at::kFloat) : at::Tensor();

  // What a row may look at by its own length; undefined when that is everything.
  at::Tensor visible;
  const auto& lengths = text.attended_lengths;
  if (std::any_of(lengths.begin(), lengths.end(), [&](int64_t n) { return n < length; })) {
    const at::Tensor ends = at::tensor(lengths, at::kLong).to(values.device()).unsqueeze(1);
    visible = at::arange(length, ends.options()).unsqueeze(0) < ends;
  }
  const bool masked = config_.config.masked_cross_attention && tokens.defined();
  at::Tensor mask = visible;
  if (masked) mask = visible.defined() ? visible.logical_and(tokens > 0) : tokens > 0;

  if (lm_proj_) values = lm_proj_->forward(values);
  for (const auto& head : lm_head_) values = head->forward(values, mask);

  at::Tensor weights;  // of the mean over tokens
  if (!tokens.defined() || (!masked && !lm_head_.empty())) {
    weights = visible.defined() ? visible.to(dtype) : at::full({batch, length}, 1, values.options());
  } else {
    weights = tokens.to(dtype);
  }
  // A caption without any token has the mean 0 (in the reference 0/0).
  const at::Tensor mean = (weights.unsqueeze(-1) * values).sum(1) / weights.sum(1, true).clamp_min(1);
  return {cond_emb_->forward(mean), values, mask};
}

void UNet::append_conditioning(const at::Tensor& text, const MicroValues& micros, int64_t batch,
                               Conditioning& out) const {
  out.micro.push_back(micro_embedding(micros, batch));
  auto& keys_values = out.keys_values.emplace_back();
  if (!text.defined()) return;
  for (const auto* list : {&down_blocks_, &mid_blocks_, &up_blocks_}) {
    for (const auto& stage : *list) stage->append_key_values(text, keys_values);
  }
}

Conditioning UNet::condition(const TextEmbedding* text, const MicroValues& micros, int64_t batch) const {
  Conditioning out;
  if (text_dim() > 0) {
    if (text == nullptr) fail("the model expects text of width ", text_dim(), ", but none was given");
    if (text->batch() != batch) fail("the text has ", text->batch(), " rows for a batch of ", batch);
    Text read = read_text(*text);
    out.pooled = std::move(read.pooled);
    out.text = std::move(read.text);
    out.mask = std::move(read.mask);
  }
  append_conditioning(out.text, micros, batch, out);
  return out;
}

at::Tensor UNet::compute(const at::Tensor& x) const {
  return x.to(x.options().dtype(conv_in_->bias.scalar_type()).memory_format(at::MemoryFormat::ChannelsLast));
}

void UNet::show(const ForwardContext& context, const std::string& name, const at::Tensor& value) const {
  if (context.probe == nullptr) return;
  const std::string full = std::to_string(level_) + "." + name;
  if (context.probe->wants(full)) context.probe->on_tensor(full, value);
}

StageInputs UNet::stage_inputs(const at::Tensor& times, int64_t rows, const Conditioning& conditioning,
                               const ForwardContext& context) const {
  at::Tensor temb = time_embedding(times);
  if (conditioning.pooled.defined()) temb = temb + conditioning.pooled;
  const at::Tensor& micro = conditioning.micro.at(level_);
  if (micro.defined()) temb = temb + micro;
  show(context, "temb", temb);
  StageInputs in;
  in.temb = at::silu(temb.narrow(0, 0, rows));
  in.keys_values = conditioning.text.defined() ? &conditioning.keys_values.at(level_) : nullptr;
  in.mask = conditioning.mask;
  in.context = &context;
  return in;
}

at::Tensor UNet::run_stage(const Stage& stage, const at::Tensor& x, const StageInputs& in,
                           std::vector<at::Tensor>* kept, std::vector<at::Tensor>* skips) const {
  const bool recompute = recompute_ && c10::GradMode::is_enabled() && x.requires_grad();
  return recompute ? forward_recomputed(stage, x, in, kept, skips) : stage.forward(x, in, kept, skips);
}

at::Tensor UNet::input_layer(const at::Tensor& x_t, bool normalize) const {
  at::Tensor x = to_frames(x_t, outer_frames_);
  if (normalize) x = x / x.std({1, 2, 3}, /*unbiased=*/true, /*keepdim=*/true);
  return from_frames(conv_in_->forward(compute(x)), outer_frames_);
}

at::Tensor UNet::down(at::Tensor x, StageInputs& in, std::vector<at::Tensor>& skips) const {
  x = to_frames(x, outer_frames_);
  skips.push_back(x);
  for (size_t i = 0; i < down_blocks_.size(); ++i) {
    const std::string name = "down_blocks." + std::to_string(i);
    if (in.context->probe != nullptr) in.name = std::to_string(level_) + "." + name;
    x = run_stage(*down_blocks_[i], x, in, &skips, nullptr);
    show(*in.context, name, x);
  }
  return from_frames(x, inner_frames_);
}

at::Tensor UNet::up(at::Tensor x, StageInputs& in, std::vector<at::Tensor>& skips) const {
  x = to_frames(x, inner_frames_);
  for (size_t i = 0; i < up_blocks_.size(); ++i) {
    const std::string name = "up_blocks." + std::to_string(i);
    if (in.context->probe != nullptr) in.name = std::to_string(level_) + "." + name;
    x = run_stage(*up_blocks_[i], x, in, nullptr, &skips);
    show(*in.context, name, x);
  }
  return from_frames(x, outer_frames_);
}

at::Tensor UNet::output_layer(const at::Tensor& x) const {
  const at::Tensor frames = to_frames(x, outer_frames_);
  return from_frames(conv_out_->forward(norm_out_->silu_of(frames)), outer_frames_).to(at::kFloat);
}

std::pair<std::vector<at::Tensor>, at::Tensor> UNet::denoise(const std::vector<at::Tensor>& x_t,
                                                             const at::Tensor& features, const at::Tensor& times,
                                                             const Conditioning& conditioning,
                                                             const ForwardContext& context) const {
  StageInputs in = stage_inputs(times, x_t[0].size(0), conditioning, context);
  at::Tensor x = input_layer(x_t[0], /*normalize=*/false);
  show(context, "conv_in", x);
  if (features.defined()) x = x + features;
  std::vector<at::Tensor> skips;
  x = down(std::move(x), in, skips);
  for (size_t i = 0; i < mid_blocks_.size(); ++i) {
    const std::string name = "mid_blocks." + std::to_string(i);
    if (context.probe != nullptr) in.name = std::to_string(level_) + "." + name;
    x = run_stage(*mid_blocks_[i], x, in, nullptr, nullptr);
    show(context, name, x);
  }
  x = up(std::move(x), in, skips);
  return {{output_layer(x)}, x};
}

std::vector<at::Tensor> UNet::forward(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                      const Conditioning& conditioning, const ForwardContext& context) const {
  if (x_t.size() != levels()) fail("the model has ", levels(), " levels, but ", x_t.size(), " were given");
  return denoise(x_t, {}, times, conditioning, context).first;
}

std::vector<at::Tensor> UNet::unused_parameters(bool inner_predictions) const {
  std::vector<at::Tensor> out;
  append_unused(/*prediction_counts=*/true, inner_predictions, out);
  return out;
}

void UNet::append_unused(bool prediction_counts, bool /*inner_predictions*/, std::vector<at::Tensor>& out) const {
  if (prediction_counts) return;
  append_parameters(*norm_out_, out);
  append_parameters(*conv_out_, out);
}

void UNet::append_text_reading(std::vector<at::Tensor>& out) const {
  if (cond_emb_) append_parameters(*cond_emb_, out);
  if (lm_proj_) append_parameters(*lm_proj_, out);
  for (const auto& head : lm_head_) append_parameters(*head, out);
  for (const auto& stage : mid_blocks_) append_parameters(*stage, out);
}

void UNet::init_layers(const ModelInit& how) {
  temb_layer1_->init(how.generator);
  temb_layer2_->init(how.generator);
  if (cond_emb_) cond_emb_->init(how.generator);
  for (const auto& [first, second] : micro_layers_) {
    first->init(how.generator);
    second->init(how.generator, how.zeroed);
  }
  conv_in_->init(how.generator);
  for (const auto* list : {&down_blocks_, &mid_blocks_, &up_blocks_}) {
    for (const auto& stage : *list) stage->init(how);
  }
  norm_out_->init();
  conv_out_->init(how.generator, how.zeroed);
  if (lm_proj_) lm_proj_->init(how.generator);
  for (const auto& head : lm_head_) head->init(how);
}

void UNet::init(const ModelInit& how) { init_layers(how); }

void UNet::pack_down(int64_t batch, int64_t& height, int64_t& width) {
  conv_in_->pack({batch, in_channels_, height, width});
  for (const auto& stage : down_blocks_) stage->pack(batch, height, width);
}

void UNet::pack_up(int64_t batch, int64_t height, int64_t width) {
  for (const auto& stage : mid_blocks_) stage->pack(batch, height, width);
  for (const auto& stage : up_blocks_) stage->pack(batch, height, width);
  conv_out_->pack({batch, config_.config.resolution_channels[0], height, width});
}

void UNet::pack(int64_t batch, int64_t height, int64_t width) {
  pack_down(batch, height, width);
  pack_up(batch, height, width);
}

}  // namespace mdm
