// The blocks of one resolution.
#include <ATen/ops/upsample_nearest1d.h>

#include <utility>

#include "mdm/models/blocks.h"
#include "mdm/ops/memory.h"

namespace mdm {

Stage::Stage(const Options& options) : options_(options) {
  const auto list = [this](const char* name) { return register_module(name, std::make_shared<ModuleList>()); };
  const auto resnets = list("resnets");
  for (const ResNetConfig& config : options_.resnets) {
    resnets_.push_back(resnets->add(std::make_shared<ResNet>(options_.temporal_dim, config)));
  }
  if (options_.attention_layers > 0) {
    const auto attention = list("attn");
    for (const ResNetConfig& config : options_.resnets) {
      for (int64_t j = 0; j < options_.attention_layers; ++j) {
        attention_.push_back(attention->add(
            std::make_shared<SelfAttention>(config.output_channels, options_.text_dim, config.use_attention_ffn)));
      }
    }
  }
  if (options_.temporal_layers > 0) {
    const auto temporal = list("t_attn");
    for (const ResNetConfig& config : options_.resnets) {
      for (int64_t j = 0; j < options_.temporal_layers; ++j) {
        temporal_.push_back(temporal->add(std::make_shared<TemporalAttention>(config.output_channels)));
      }
    }
  }
  if (options_.resample == Resample::kNone) return;
  const int64_t channels = options_.resnets.back().output_channels;
  const int64_t stride = options_.resample == Resample::kDown ? 2 : 1;
  if (options_.over_frames) {
    resample_frames_ = register_module("resample", std::make_shared<Conv1d>(channels, channels, 3, stride, 1));
  } else {
    resample_ = register_module("resample", std::make_shared<Conv2d>(channels, channels, 3, stride, 1));
  }
}

size_t Stage::text_layers() const {
  size_t count = 0;
  for (const auto& layer : attention_) count += layer->attends_to_text() ? 1 : 0;
  return count;
}

void Stage::append_key_values(const at::Tensor& text, std::vector<ops::KeyValue>& out) const {
  for (const auto& layer : attention_) {
    if (layer->attends_to_text()) out.push_back(layer->key_value(text));
  }
}

at::Tensor Stage::forward(at::Tensor x, const StageInputs& in, std::vector<at::Tensor>* kept,
                          std::vector<at::Tensor>* skips) const {
  size_t text_layer = options_.first_text_layer;
  for (size_t i = 0; i < resnets_.size(); ++i) {
    at::Tensor skip;
    if (skips != nullptr) {
      skip = std::move(skips->back());
      skips->pop_back();
    }
    x = resnets_[i]->forward(x, skip, in, options_.first_resnet + static_cast<uint32_t>(i));
    for (int64_t j = 0; j < options_.attention_layers; ++j) {
      const size_t at = i * static_cast<size_t>(options_.attention_layers) + static_cast<size_t>(j);
      const ops::KeyValue* text =
          attention_[at]->attends_to_text() && in.keys_values != nullptr ? &(*in.keys_values)[text_layer++] : nullptr;
      x = attention_[at]->forward(std::move(x), text, in,
                                  in.name.empty() ? in.name : in.name + ".attn." + std::to_string(at));
    }
    for (int64_t j = 0; j < options_.temporal_layers; ++j) {
      const size_t at = i * static_cast<size_t>(options_.temporal_layers) + static_cast<size_t>(j);
      x = temporal_[at]->forward_frames(x, in.temb.size(0));
    }
    if (kept != nullptr) kept->push_back(x);
  }
  if (options_.resample == Resample::kNone) return x;
  x = resample(x, in.temb.size(0));
  if (kept != nullptr) kept->push_back(x);
  return x;
}

at::Tensor Stage::resample(const at::Tensor& x, int64_t batch) const {
  const bool up = options_.resample == Resample::kUp;
  if (!options_.over_frames) {
    return up ? resample_->forward_upsampled(x) : resample_->forward(x);
  }
  const int64_t frames = x.size(0) / batch, channels = x.size(1), height = x.size(2), width = x.size(3);
  at::Tensor series = x.reshape({batch, frames, channels, height, width})
                          .permute({0, 3, 4, 2, 1})
                          .reshape({batch * height * width, channels, frames});
  if (up) series = at::upsample_nearest1d(series, {2 * frames});
  series = resample_frames_->forward(series);
  return series.view({batch, height, width, channels, series.size(2)})
      .permute({0, 4, 3, 1, 2})
      .reshape({batch * series.size(2), channels, height, width});
}

void Stage::init(const ModelInit& how) {
  for (const auto& block : resnets_) block->init(how);
  for (const auto& layer : attention_) layer->init(how);
  for (const auto& layer : temporal_) layer->init(how);
  if (resample_) resample_->init(how.generator);
  if (resample_frames_) resample_frames_->init(how.generator);
}

void Stage::pack(int64_t batch, int64_t& height, int64_t& width) {
  size_t at = 0;
  for (size_t i = 0; i < resnets_.size(); ++i) {
    const auto& block = resnets_[i];
    const int64_t skip_channels = options_.skip_channels.empty() ? 0 : options_.skip_channels[i];
    block->pack({batch, block->in_channels(), height, width}, skip_channels);
    for (int64_t j = 0; j < options_.attention_layers; ++j) {
      attention_[at++]->pack({batch, block->out_channels(), height, width});
    }
  }
  ops::return_freed_memory();
  if (!resample_) return;
  const bool up = options_.resample == Resample::kUp;
  const std::vector<int64_t> size = {batch, options_.resnets.back().output_channels, height, width};
  up ? resample_->pack_upsampled(size) : resample_->pack(size);
  height = up ? 2 * height : (height + 1) / 2;
  width = up ? 2 * width : (width + 1) / 2;
}

}  // namespace mdm
