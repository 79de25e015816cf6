// UNet: one level of the model; NestedUNet: a level that holds another one as its middle.
// Reference: ml_mdm/models/unet.py (UNet), nested_unet.py (NestedUNet); arXiv 2310.15111, section 3.2.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mdm/config/model_config.h"
#include "mdm/models/blocks.h"
#include "mdm/text/text_embedding.h"

namespace mdm {

/// A denoising network over one or several resolutions. Thread-compatible: const calls may run together.
class UNet : public torch::nn::Module {
 public:
  /// `levels`: what resolve() made of the config, outermost first; `level`: which of them this one is;
  /// `scales`: level_scales(). Parameters are uninitialised until init() or a checkpoint is loaded.
  UNet(const std::vector<ResolvedUNetConfig>& levels, size_t level, const std::vector<int64_t>& scales,
       int64_t in_channels, int64_t out_channels);

  /// Computes once what does not depend on the time. `text`: nullptr for a model without text.
  /// `micros` (B) each; `batch` is B of the lowest level.
  /// Throws Error when the text's width is not the model's.
  Conditioning condition(const TextEmbedding* text, const MicroValues& micros, int64_t batch) const;

  /// x_t: one tensor (B_i, in, H_i, W_i) per level, outermost first, B_0 <= ... <= B_last = B (a mixed batch:
  /// a level works on the first rows); times (B), raw integer steps; -> predictions of the same shapes, float32.
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                  const Conditioning& conditioning, const ForwardContext& context = {}) const;

  /// One level of the forward pass and those inside it. `features` (B_i, C, H_i, W_i), added after the
  /// input convolution, come from the level around it (undefined: none). Returns the predictions of this
  /// level and those inside, and this level's last features.
  virtual std::pair<std::vector<at::Tensor>, at::Tensor> denoise(const std::vector<at::Tensor>& x_t,
                                                                 const at::Tensor& features, const at::Tensor& times,
                                                                 const Conditioning& conditioning,
                                                                 const ForwardContext& context) const;

  /// (B) -> (B, T): sinusoids of the time, then two layers. Float32 sinusoids whatever the weights' type.
  at::Tensor time_embedding(const at::Tensor& times) const;

  /// Draws all weights in the order in which the reference constructs its layers.
  virtual void init(const ModelInit& how);

  /// Training: whether stages keep nothing but their inputs and compute their activations again in the backward
  /// pass, which gives the same gradients. ForwardContext::dropout must then stay until that has run.
  void set_gradient_checkpointing(bool on) { set_gradient_checkpointing(std::vector<bool>(levels(), on)); }
  /// The same for some levels; one value for each, the outermost first.
  virtual void set_gradient_checkpointing(const std::vector<bool>& on_levels) { recompute_ = on_levels.at(0); }

  /// Parameters that no forward pass uses, by their place in the reference's constructor (a level around
  /// another one has its own reading of the text, and layers for interp_conditioning), and those that only
  /// predictions of inner levels use, unless `inner_predictions` count in the loss.
  std::vector<at::Tensor> unused_parameters(bool inner_predictions) const;

  /// Inference on the CPU: replaces convolution weights by oneDNN's own layout for a batch of images
  /// whose outermost level is `side` pixels. Weights can't be loaded or saved afterwards.
  virtual void pack(int64_t batch, int64_t height, int64_t width);

  const ResolvedUNetConfig& config() const { return config_; }
  int64_t in_channels() const { return in_channels_; }
  /// Width of the text that the model expects, <= 0 without text.
  virtual int64_t text_dim() const { return config_.text_dim; }
  /// Number of levels from here inwards.
  virtual size_t levels() const { return 1; }

 protected:
  struct Text {
    at::Tensor pooled, text, mask;
  };
  /// The innermost level's view of the text (all levels use it).
  virtual Text read_text(const TextEmbedding& text) const;
  /// This level's and the inner levels' micro embeddings and keys/values.
  virtual void append_conditioning(const at::Tensor& text, const MicroValues& micros, int64_t batch,
                                   Conditioning& out) const;
  at::Tensor micro_embedding(const MicroValues& micros, int64_t batch) const;
  StageInputs stage_inputs(const at::Tensor& times, int64_t rows, const Conditioning& conditioning,
                           const ForwardContext& context) const;

  at::Tensor input_layer(const at::Tensor& x_t, bool normalize) const;
  at::Tensor down(at::Tensor x, StageInputs& in, std::vector<at::Tensor>& skips) const;
  at::Tensor up(at::Tensor x, StageInputs& in, std::vector<at::Tensor>& skips) const;
  at::Tensor output_layer(const at::Tensor& x) const;
  void init_layers(const ModelInit& how);
  /// Packs this level up to its middle (height, width become the middle's), then the way up.
  void pack_down(int64_t batch, int64_t& height, int64_t& width);
  void pack_up(int64_t batch, int64_t height, int64_t width);
  at::Tensor compute(const at::Tensor& x) const;  // to the weights' dtype, channels_last
  void show(const ForwardContext& context, const std::string& name, const at::Tensor& value) const;

  ResolvedUNetConfig config_;
  size_t level_;
  int64_t in_channels_;
  int64_t outer_frames_ = 1, inner_frames_ = 1;  // per side, temporal mode
  bool recompute_ = false;
  virtual void append_unused(bool prediction_counts, bool inner_predictions, std::vector<at::Tensor>& out) const;
  /// The parts of a level's own that only the innermost level uses.
  void append_text_reading(std::vector<at::Tensor>& out) const;
  at::Tensor run_stage(const Stage& stage, const at::Tensor& x, const StageInputs& in, std::vector<at::Tensor>* kept,
                       std::vector<at::Tensor>* skips) const;

 private:
  friend class NestedUNet;  // a level reads the text and conditions the levels inside it
  at::Tensor sinusoid(const at::Tensor& times) const;

  std::shared_ptr<Linear> temb_layer1_, temb_layer2_, cond_emb_;
  std::vector<std::pair<std::shared_ptr<Linear>, std::shared_ptr<Linear>>> micro_layers_;
  std::shared_ptr<Conv2d> conv_in_, conv_out_;
  std::shared_ptr<GroupNorm> norm_out_;
  std::vector<std::shared_ptr<Stage>> down_blocks_, mid_blocks_, up_blocks_;
  std::shared_ptr<Linear> lm_proj_;
  std::vector<std::shared_ptr<SequenceAttention>> lm_head_;
};

/// A level whose middle is another UNet, which also gets the lower resolutions' x_t.
class NestedUNet : public UNet {
 public:
  NestedUNet(const std::vector<ResolvedUNetConfig>& levels, size_t level, const std::vector<int64_t>& scales,
             int64_t in_channels, int64_t out_channels);

  std::pair<std::vector<at::Tensor>, at::Tensor> denoise(const std::vector<at::Tensor>& x_t, const at::Tensor& features,
                                                         const at::Tensor& times, const Conditioning& conditioning,
                                                         const ForwardContext& context) const override;
  void init(const ModelInit& how) override;
  void pack(int64_t batch, int64_t height, int64_t width) override;
  using UNet::set_gradient_checkpointing;
  void set_gradient_checkpointing(const std::vector<bool>& on_levels) override;
  size_t levels() const override { return 1 + inner_->levels(); }
  const std::shared_ptr<UNet>& inner() const { return inner_; }

 protected:
  Text read_text(const TextEmbedding& text) const override;
  void append_conditioning(const at::Tensor& text, const MicroValues& micros, int64_t batch,
                           Conditioning& out) const override;
  void append_unused(bool prediction_counts, bool inner_predictions, std::vector<at::Tensor>& out) const override;

 private:
  std::shared_ptr<UNet> inner_;
  std::shared_ptr<Conv2d> in_adapter_, out_adapter_;
  std::shared_ptr<Linear> interp_layer1_, interp_layer2_;
};

struct ModelOptions {
  at::ScalarType dtype = at::kFloat;  ///< of all parameters but GroupNorm's, which stay float32
  bool channels_last = false;         ///< layout of convolution weights (init() wants the plain one)
};

/// The network of a config, with uninitialised weights, 3 channels in and out. `text_dim`: width of the
/// text's features, <= 0: none. Throws ConfigError for what can't be built.
std::shared_ptr<UNet> make_model(const ModelConfig& config, int64_t text_dim, const ModelOptions& options = {});

/// A generator of its own, seeded as torch.manual_seed does, for init().
at::Generator make_generator(uint64_t seed);

}  // namespace mdm
