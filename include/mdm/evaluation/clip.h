// CLIP (Radford et al. 2021, arXiv 2103.00020): how well a picture fits its caption. Files and arithmetic as in Hugging
// Face's transformers (models/clip/modeling_clip.py), for vision transformers of any size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

/// Immutable after load(); may be shared between threads. Float32 on the CPU.
class ClipModel {
 public:
  /// A Hugging Face folder such as openai/clip-vit-base-patch16: config.json, weights (model.safetensors or
  /// pytorch_model.bin, also sharded), the tokenizer's files, and preprocessor_config.json where it says otherwise than
  /// OpenAI's mean and deviation. ConfigError for another kind of model or a field that is missing or out of range,
  /// CheckpointError for weights that don't fit.
  static ClipModel load(const std::filesystem::path& folder);
  ClipModel(ClipModel&&) noexcept;
  ClipModel& operator=(ClipModel&&) noexcept;
  ~ClipModel();

  /// (projection width), not normalised: the image tower's embedding of clip_input's picture.
  at::Tensor image_embedding(const Image& image) const;
  /// (B, 3, side, side) -> (B, width).
  at::Tensor image_embeddings(const at::Tensor& x) const;
  /// (projection width), not normalised. A caption of more tokens than the tower has positions (77) is cut there, the
  /// end token kept; `*cut` then is true.
  at::Tensor text_embedding(const std::string& caption, bool* cut = nullptr) const;
  /// 100 times the cosine between the two embeddings, -100 to 100.
  double similarity(const Image& image, const std::string& caption, bool* cut = nullptr) const;

  int64_t width() const;            ///< of the embeddings
  int side() const;                 ///< of the pictures that the tower takes
  int64_t most_tokens() const;      ///< positions of the text tower
  std::string description() const;  ///< "ViT-B/16 at 224 pixels"

 private:
  struct Impl;
  explicit ClipModel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
