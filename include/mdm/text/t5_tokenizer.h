// T5's own tokenizer: SentencePiece with a spiece.model, as Hugging Face pipelines use it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/text/tokenizer.h"

namespace mdm {

/// Normalises (NFKC, single spaces) and segments with SentencePiece. The model file is read and checked
/// by our own reader; SentencePiece gets only what passed. A caption cut to max_token_length keeps its
/// EOS, as in Hugging Face (the reference's tokenizer loses it). Control pieces can't be written in text.
class T5Tokenizer final : public Tokenizer {
 public:
  /// DataError when the file is no SentencePiece unigram model or is damaged.
  static T5Tokenizer open(const std::filesystem::path& spiece_model);

  T5Tokenizer(T5Tokenizer&&) noexcept;
  T5Tokenizer& operator=(T5Tokenizer&&) noexcept;
  ~T5Tokenizer() override;

  std::vector<int32_t> encode_inference(std::string_view text, const TokenLimits& limits) const override;
  TrainingTokens encode_training(std::string_view text, const TokenLimits& limits) const override;
  std::string kind() const override { return "t5"; }
  int64_t vocab_size() const override;
  int32_t id_of(std::string_view piece) const override;
  std::string_view piece(int32_t id) const override;
  int32_t pad_id() const override;
  int32_t eos_id() const override;
  int32_t bos_id() const override;

 private:
  struct Impl;
  explicit T5Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
