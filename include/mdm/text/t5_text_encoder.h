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
  /// How many distinct captions went through the network since the object was made.
  int64_t captions_encoded() const { return captions_encoded_; }

 protected:
  std::vector<Row> encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) override;
  int64_t forced_length() const override;

 private:
  std::vector<Row> encode_ids(const std::vector<const std::vector<int32_t>*>& ids);
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
