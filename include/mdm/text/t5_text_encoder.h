// Captions through a tokenizer and a T5 encoder: what the shipped models are conditioned on.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mdm/text/t5_encoder.h"
#include "mdm/text/text_encoder.h"

namespace mdm {

/// As the reference's LanguageModel (ml_mdm/language_models/factory.py): mask = ids that are not padding,
/// outputs times mask. Captions with the same ids are encoded once; captions of similar length together.
class T5TextEncoder final : public TextEncoder {
 public:
  /// `padding_token` must be a piece of the vocabulary; ConfigError otherwise.
  T5TextEncoder(std::unique_ptr<const Tokenizer> tokenizer, T5Encoder encoder, const TokenLimits& limits,
                const std::string& padding_token = "<pad>");

  TextKind kind() const override { return TextKind::kT5; }
  int64_t width() const override { return encoder_.width(); }
  at::Device device() const override { return encoder_.device(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  /// The ids of a caption as encode() uses them. DataError when the limits leave none.
  std::vector<int32_t> tokens_of(const std::string& caption, int64_t max_length, Use use) const;
  /// The outputs of token lists, (L_i, D) float each, zero at padding ids; one forward for several of them.
  /// `alone`: what a list gives depends on nothing but itself, to the bit: lists go through the network in a
  /// fixed number of rows and padded to one of few lengths, so that its products always have the same shapes.
  /// Training wants that: what is computed again after a crash, or was kept, is the same.
  std::vector<at::Tensor> encode_tokens(const std::vector<const std::vector<int32_t>*>& ids, bool alone);
  /// 1 where an id is no padding: (L) float.
  at::Tensor mask_of(const std::vector<int32_t>& ids) const;
  /// How many distinct captions went through the network since the object was made.
  int64_t captions_encoded() const { return captions_encoded_; }

 protected:
  Rows encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) override;
  int64_t forced_length() const override;

 private:
  friend class CachedTextEncoder;  // has the same rows, from elsewhere
  void keep(const std::map<std::vector<int32_t>, Row>& rows);

  std::unique_ptr<const Tokenizer> tokenizer_;
  T5Encoder encoder_;
  TokenLimits limits_;
  int32_t pad_id_;
  std::map<std::vector<int32_t>, Row> kept_;
  int64_t kept_bytes_ = 0;
  int64_t captions_encoded_ = 0;
};

}  // namespace mdm
