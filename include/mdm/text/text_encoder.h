// From captions to TextEmbedding: the interface of text encoders, and the factory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mdm/config/reader_config.h"
#include "mdm/config/text_config.h"
#include "mdm/text/text_embedding.h"
#include "mdm/text/tokenizer.h"

namespace mdm {

/// Encodes captions. Not for use by several threads at a time. All that an encoder holds, weights and
/// embeddings kept from earlier calls, goes with the object: destroy it before denoising to free it.
class TextEncoder {
 public:
  enum class Use {
    kSampling,  ///< prompts: tokenised as the reference's process_text does; embeddings are kept for the next call
    kTraining,  ///< captions of a data set: tokenised as its reader does, nothing is kept
  };

  virtual ~TextEncoder() = default;
  virtual TextKind kind() const = 0;
  virtual int64_t width() const = 0;  ///< D of lm_outputs, which the model's conditioning_feature_dim must equal
  virtual at::Device device() const = 0;

  /// One row a caption. Row lengths (TextEmbedding::attended_lengths): `pair`: the row's own tokens;
  /// `batch`: the longest row's; `fixed:N`: N, and captions of more tokens are cut to N. (B, L, D) has L =
  /// the largest. What a row holds does not depend on its neighbours, up to rounding.
  /// An encoder that is trained (joint_encoder.h) records gradients unless c10::GradMode is off.
  TextEmbedding encode(const std::vector<std::string>& captions, const PadPolicy& pad, Use use = Use::kSampling);

  /// Embeddings that were computed before and lie beside the images (Batch::embeddings): (L_i, D) each, any
  /// floating-point type, any device; an undefined one stands for the empty caption, which is encoded as
  /// sampling does. Row lengths as encode() has them. DataError for another width or shape.
  TextEmbedding encode_given(const std::vector<at::Tensor>& embeddings, const PadPolicy& pad);

  /// For guidance: 2B rows, the negatives first and then the prompts, as the reference batches them
  /// (clis/generate_sample.py). With `pair`, rows i and B + i have the length of the longer of the two.
  TextEmbedding encode_pairs(const std::vector<std::string>& negatives, const std::vector<std::string>& prompts,
                             const PadPolicy& pad);

 protected:
  /// One caption, without padding.
  struct Row {
    at::Tensor outputs;  ///< (L, D) float on device(), zero where the mask is
    at::Tensor mask;     ///< (L) float on device()
  };
  /// Captions padded to the longest of them.
  struct Rows {
    at::Tensor outputs;            ///< (B, L, D) float on device(), zero where the mask is
    at::Tensor mask;               ///< (B, L) float on device()
    std::vector<int64_t> lengths;  ///< of the rows, at most L
  };
  /// The rows of `captions`, each cut to `max_length` tokens (-1: not).
  virtual Rows encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) = 0;
  /// A length that all rows get whatever the policy (the reference's pad_to_max_length), or -1.
  virtual int64_t forced_length() const { return -1; }
  /// Pads rows that were made one by one.
  Rows padded(const std::vector<Row>& rows) const;

 private:
  TextEmbedding embedding_of(Rows rows, const PadPolicy& pad) const;
};

/// Pads rows (L_i, D) to one TextEmbedding with all positions valid; for embeddings that lie beside the
/// images. `length`: -1 for the longest; else rows are cut or padded to it.
TextEmbedding embedding_from_rows(const std::vector<at::Tensor>& rows, int64_t length = -1);

struct TextEncoderOptions {
  at::Device device = at::kCPU;
  TokenizerCompat compat;    ///< golden runner only
  int64_t class_width = -1;  ///< kClass: width that the checkpoint was trained with; -1: one per class
  /// kJoint: the file whose weights and vocabulary are taken; empty: a fresh encoder for training, whose
  /// weights are uninitialised (JointTextEncoder::network()->init()).
  std::filesystem::path checkpoint;
  /// For training: kT5 with TextConfig::embedding_cache keeps outputs there (embedding_cache.h).
  bool training = false;
};

/// The tokenizer of a config: `vocab_file` if it is there, else spiece.model in `text_model_folder` (empty:
/// none is looked for). ConfigError that says what was looked for when neither is there. kJoint: the mdm
/// tokenizer of `vocab_file`.
std::unique_ptr<Tokenizer> make_tokenizer(const TextConfig& text, const std::filesystem::path& text_model_folder,
                                          const TokenizerCompat& compat = {});

/// The encoder of a config.
/// kT5: a folder or an id in the Hugging Face cache (text_model.h).
/// kPrecomputed: `text_model` is a safetensors file whose tensors (L, D) are named by their captions.
/// kClass: `vocab_file` lists the classes, one a line.
/// kJoint: a small encoder trained with the model (joint_encoder.h).
std::unique_ptr<TextEncoder> make_text_encoder(const TextConfig& text, const ReaderConfig& reader,
                                               const TextEncoderOptions& options = {});

}  // namespace mdm
