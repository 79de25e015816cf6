// What a user can set about text: tokenizer, encoder, padding.
#pragma once

#include <cstdint>
#include <string>

namespace mdm {

/// Where the features of a caption come from.
enum class TextKind {
  kT5,           ///< a frozen T5 encoder (`text_model`)
  kJoint,        ///< a small encoder trained with the model
  kPrecomputed,  ///< embeddings that lie beside the images
  kClass,        ///< class labels as one-hot vectors
};

enum class TokenizerKind {
  kMdm,  ///< bit-compatible with the reference (byte trie over the vocabulary)
  kT5,   ///< sentencepiece
};

enum class TextPrecision { kFp32, kBf16 };

/// How many padding positions a caption's row gets (the shipped models attend to padding, so this
/// changes pictures).
struct PadPolicy {
  enum class Mode {
    kPair,   ///< up to the longer of a prompt and its negative prompt: equals the reference's batch of one
    kBatch,  ///< up to the batch's longest, as the reference does
    kFixed,  ///< up to `length`
  };
  static constexpr int64_t kMostTokens = 1000000;

  Mode mode = Mode::kPair;
  int64_t length = 0;  ///< kFixed only, in tokens, 1 to kMostTokens

  /// "pair", "batch" or "fixed:N".
  std::string text() const;
  /// The policy that `text()` writes; ConfigError for anything else.
  static PadPolicy parse(const std::string& text);
};

struct TextConfig {
  std::string text_model = "google/flan-t5-xl";  ///< folder, or an id looked up in the Hugging Face cache
  std::string vocab_file;                        ///< `.vocab` or `spiece.model`; empty: the text model's own
  TokenizerKind tokenizer = TokenizerKind::kMdm;
  TextKind kind = TextKind::kT5;                        ///< key `text_kind`
  TextPrecision text_precision = TextPrecision::kFp32;  ///< arithmetic of the T5 encoder
  bool categorical_conditioning = false;                ///< the reference's switch for kind kClass
  bool use_precomputed_text_embeddings = false;         ///< the reference's switch for kind kPrecomputed
  bool keep_text_encoder = false;                       ///< keep the encoder in memory while denoising
  PadPolicy pad;

  // kJoint: a Transformer encoder over the tokens of `vocab_file`.
  int64_t joint_width = 256;   ///< D of its outputs, a multiple of joint_heads
  int64_t joint_layers = 2;    ///< >= 1
  int64_t joint_heads = 4;     ///< >= 1
  int64_t joint_tokens = 128;  ///< most tokens of a caption, >= 1

  std::string embedding_cache;  ///< training with kT5: folder where outputs are kept; empty: computed anew each time
};

}  // namespace mdm
