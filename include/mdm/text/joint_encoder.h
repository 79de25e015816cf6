// A small text encoder that is trained together with the image model, for people who train on a domain of
// their own and have no use for T5: a Transformer over the tokens of a short caption.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/write.h"
#include "mdm/ops/layers.h"
#include "mdm/text/mdm_tokenizer.h"
#include "mdm/text/text_encoder.h"

namespace mdm {

/// One layer: x + attention(norm1(x)), then x + linear(gelu(linear(norm2(x)))) with four times the width inside
/// (pre-norm: Xiong et al. 2020, arXiv 2002.04745). Every token looks at every token that is no padding.
class JointTextLayer : public torch::nn::Module {
 public:
  JointTextLayer(int64_t width, int64_t heads);
  /// x (B, L, D) float32, mask (B, L) bool -> (B, L, D) float32; products in the weights' type.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) const;
  void init(at::Generator generator, double residual_scale);

 private:
  int64_t heads_;
  std::shared_ptr<LayerNorm> norm1_, norm2_;
  std::shared_ptr<Linear> qkv_, proj_out_, up_, down_;
};

/// The network: token and learned position embeddings, layers, a last LayerNorm. Parameters are uninitialised
/// until init() or until a checkpoint is loaded. Weights may be float32 or bfloat16.
class JointTextNetwork : public torch::nn::Module {
 public:
  struct Shape {
    int64_t vocab_size = 0;
    int64_t width = 256;  ///< D, a multiple of heads
    int64_t layers = 2;
    int64_t heads = 4;
    int64_t tokens = 128;  ///< most tokens of a caption
  };
  /// ConfigError when the shape is not possible.
  explicit JointTextNetwork(const Shape& shape);

  /// ids (B, L) int64, L <= tokens, mask (B, L) bool with a true value in each row -> (B, L, D) float32, zero
  /// where the mask is false. A row does not depend on the others nor, up to rounding, on its padding.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& mask) const;
  void init(at::Generator generator);
  const Shape& shape() const { return shape_; }

 private:
  Shape shape_;
  at::Tensor token_embedding_;     // (V, D)
  at::Tensor position_embedding_;  // (tokens, D)
  std::vector<std::shared_ptr<JointTextLayer>> layers_;
  std::shared_ptr<LayerNorm> norm_out_;
};

/// Captions through the mdm tokenizer and the network, one forward a batch. Unlike T5's, training captions are
/// tokenised as prompts are (TextEncoder::Use makes no difference), so that both mean the same.
/// Differentiable: what encode() returns leads back to the network's parameters unless c10::GradMode is off.
class JointTextEncoder final : public TextEncoder {
 public:
  /// `padding_token` must be a piece of the vocabulary; ConfigError otherwise.
  JointTextEncoder(MdmTokenizer tokenizer, std::shared_ptr<JointTextNetwork> network, const TokenLimits& limits,
                   const std::string& padding_token = "<pad>");

  /// A fresh encoder: the vocabulary from `text.vocab_file`, uninitialised weights. ConfigError.
  static std::unique_ptr<JointTextEncoder> make(const TextConfig& text, const ReaderConfig& reader);
  /// Weights and vocabulary from a checkpoint (`text.vocab_file` where the checkpoint holds none); the shape is
  /// `text`'s, but for the vocabulary's size. CheckpointError when the file has no text encoder or another one;
  /// all keys and shapes that differ are listed.
  static std::unique_ptr<JointTextEncoder> from_checkpoint(const std::filesystem::path& checkpoint,
                                                           const TextConfig& text, const ReaderConfig& reader);

  /// Takes over the weights of a checkpoint's text encoder, as from one stage of a training to the next.
  /// CheckpointError when there is none, or another one: of another shape, or trained with another vocabulary.
  void load(const std::filesystem::path& checkpoint);

  TextKind kind() const override { return TextKind::kJoint; }
  int64_t width() const override { return network_->shape().width; }
  at::Device device() const override;
  const MdmTokenizer& tokenizer() const { return tokenizer_; }
  const std::shared_ptr<JointTextNetwork>& network() const { return network_; }

  /// The ids of a caption as encode() uses them. DataError when the limits leave none.
  std::vector<int32_t> tokens_of(const std::string& caption, int64_t max_length, Use use) const;

  /// What a checkpoint keeps of the encoder (checkpoint/write.h): the tensors of its section
  /// kTextEncoderSection, which are the network's own, and the text of the item kTextVocabularyItem.
  std::vector<NamedTensor> tensors() const;
  std::string vocabulary() const { return tokenizer_.vocab_text(); }

 protected:
  Rows encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) override;
  int64_t forced_length() const override;

 private:
  MdmTokenizer tokenizer_;
  std::shared_ptr<JointTextNetwork> network_;
  TokenLimits limits_;
  int32_t pad_id_;
};

/// The tokenizer of a checkpoint's text encoder: of the vocabulary that the file keeps, else of `text.vocab_file`.
/// CheckpointError when the file has no text encoder.
MdmTokenizer joint_tokenizer(const std::filesystem::path& checkpoint, const TextConfig& text);

/// Whether the file holds a text encoder (kTextEncoderSection). CheckpointError when it can't be read.
bool holds_text_encoder(const std::filesystem::path& checkpoint);

/// Copies the file's text encoder into `tensors` (of a network of the same shape), strictly; for programs that
/// keep the tensors elsewhere than in a network, and to carry an encoder over from one training to the next.
/// `compare_only`: nothing is copied. CheckpointError.
void load_text_encoder(const std::filesystem::path& checkpoint, const std::vector<NamedTensor>& tensors,
                       bool compare_only = false);

}  // namespace mdm
