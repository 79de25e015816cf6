// The parts that UNets are built of: residual blocks, attention, and the stages made of them.
// Names, order and shapes of all parameters equal the reference's (ml_mdm/models/unet.py).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mdm/config/model_config.h"
#include "mdm/models/conditioning.h"
#include "mdm/models/forward_context.h"
#include "mdm/ops/layers.h"

namespace mdm {

/// Fresh weights: how layers that the reference sets to zero are drawn.
struct ModelInit {
  at::Generator generator;
  LayerInit zeroed = LayerInit::kZero;
};

/// What a stage needs beside its input.
struct StageInputs {
  at::Tensor temb;                                          ///< (B, T) SiLU of the time embedding
  const std::vector<ops::KeyValue>* keys_values = nullptr;  ///< of this level; nullptr without text
  at::Tensor mask;                                          ///< (B, L) bool or undefined
  const ForwardContext* context = nullptr;
  std::string name;  ///< "<level>.<block>", set when there is a probe
};

/// conv3(x) or x, plus conv2(SiLU(norm2(conv1(SiLU(norm1 x))) * (1 + a) + b)) with (a, b) made of the
/// time embedding.
class ResNet : public torch::nn::Module {
 public:
  ResNet(int64_t temporal_dim, const ResNetConfig& config);
  /// x (N, C, H, W), N a multiple of the batch (frames); -> (N, C_out, H, W). `layer` numbers the block.
  /// `skip`: the last channels of C, when they come from a skip connection; else undefined.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& skip, const StageInputs& in, uint32_t layer) const;
  void init(const ModelInit& how);
  /// `skip_channels`: of `skip`, 0 without.
  void pack(at::IntArrayRef input_size, int64_t skip_channels);

  int64_t in_channels() const { return in_channels_; }
  int64_t out_channels() const { return out_channels_; }

 private:
  int64_t in_channels_, out_channels_;
  double dropout_;
  std::shared_ptr<GroupNorm> norm1_;
  std::shared_ptr<Conv2d> conv1_;
  std::shared_ptr<Linear> time_layer_;
  std::shared_ptr<GroupNorm> norm2_;
  std::shared_ptr<Conv2d> conv2_;
  std::shared_ptr<Conv2d> conv3_;  // only when the channels change
};

/// Attention over the image and, in a softmax of its own, over the text; then a feed-forward part if
/// configured. 8 heads; GroupNorms of 32 groups.
class SelfAttention : public torch::nn::Module {
 public:
  /// text_dim <= 0: no text.
  SelfAttention(int64_t channels, int64_t text_dim, bool with_ffn);
  /// x (B, C, H, W) -> same; x is overwritten once the weights are packed. `text` is this layer's key_value().
  at::Tensor forward(at::Tensor x, const ops::KeyValue* text, const StageInputs& in, const std::string& name) const;
  /// text (B, L, D) -> keys and values (B, 8, L, C/8).
  ops::KeyValue key_value(const at::Tensor& text) const;
  bool attends_to_text() const { return kv_cond_ != nullptr; }
  void init(const ModelInit& how);
  void pack(at::IntArrayRef input_size);

 private:
  int64_t channels_;
  std::shared_ptr<GroupNorm> norm_;
  std::shared_ptr<Conv2d> qkv_;
  std::shared_ptr<LayerNorm> norm_cond_;
  std::shared_ptr<Linear> kv_cond_;
  std::shared_ptr<Conv2d> proj_out_;
  std::shared_ptr<ModuleList> ffn_;
  std::shared_ptr<GroupNorm> ffn_norm_;
  std::shared_ptr<Conv2d> ffn_in_, ffn_out_;
};

/// Attention over the tokens of a sequence, then an MLP, both residual; 8 heads by default.
/// Serves as text head (`lm_head`) and inside TemporalAttention.
class SequenceAttention : public torch::nn::Module {
 public:
  SequenceAttention(int64_t channels, int64_t heads);
  /// x (B, L, C), mask (B, L) bool of the tokens that may be looked at, or undefined -> (B, L, C).
  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) const;
  void init(const ModelInit& how);

 protected:
  int64_t heads_;
  std::shared_ptr<LayerNorm> norm_;
  std::shared_ptr<Linear> qkv_, proj_out_;
  std::shared_ptr<LayerNorm> mlp_norm_;
  std::shared_ptr<Linear> mlp_in_, mlp_out_;
};

/// Attention over the frames at each image position, at half resolution (temporal mode).
class TemporalAttention : public SequenceAttention {
 public:
  explicit TemporalAttention(int64_t channels);
  /// x (B frames, C, H, W) -> same.
  at::Tensor forward_frames(const at::Tensor& x, int64_t batch) const;
  void init(const ModelInit& how);

 private:
  std::shared_ptr<Conv2d> down_conv_, up_conv_;
};

enum class Resample { kNone, kDown, kUp };

/// The blocks of one resolution: resnets, each followed by its attention layers, then a resampling.
class Stage : public torch::nn::Module {
 public:
  struct Options {
    int64_t temporal_dim = 0;
    std::vector<ResNetConfig> resnets;
    int64_t attention_layers = 0;  ///< after each resnet
    int64_t text_dim = -1;         ///< <= 0: the attention layers do not see the text
    int64_t temporal_layers = 0;   ///< after each resnet
    bool over_frames = false;      ///< resample over frames instead of positions
    Resample resample = Resample::kNone;
    std::vector<int64_t> skip_channels;  ///< of each resnet's input, what a skip connection brings; empty: none
    size_t first_text_layer = 0;         ///< index of its first cross-attention layer within the level
    uint32_t first_resnet = 0;           ///< index of its first resnet within the model
  };
  explicit Stage(const Options& options);

  /// x (N, C, H, W). On the way down `kept` receives each resnet's output and the resampled one; on the
  /// way up `skips` gives what is appended to the channels, taken from its end.
  at::Tensor forward(at::Tensor x, const StageInputs& in, std::vector<at::Tensor>* kept,
                     std::vector<at::Tensor>* skips) const;
  /// Appends the keys and values of its cross-attention layers.
  void append_key_values(const at::Tensor& text, std::vector<ops::KeyValue>& out) const;
  size_t text_layers() const;
  const Options& options() const { return options_; }
  void init(const ModelInit& how);
  /// Packs the weights for inputs (batch, ., height, width); sets the two to the output's size.
  void pack(int64_t batch, int64_t& height, int64_t& width);

 private:
  at::Tensor resample(const at::Tensor& x, int64_t batch) const;

  Options options_;
  std::vector<std::shared_ptr<ResNet>> resnets_;
  std::vector<std::shared_ptr<SelfAttention>> attention_;
  std::vector<std::shared_ptr<TemporalAttention>> temporal_;
  std::shared_ptr<Conv2d> resample_;
  std::shared_ptr<Conv1d> resample_frames_;
};

}  // namespace mdm
