// A model of the SentencePiece library, which is loaded as a module when the first one is made
// (sentencepiece_api.h says why it is not linked).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/sentencepiece_api.h"

namespace mdm {

class SentencepieceModel {
 public:
  /// From the bytes of a ModelProto; `where` names their file in errors. ConfigError when the module is
  /// not found or can't be used, DataError when SentencePiece refuses the bytes.
  SentencepieceModel(std::string_view bytes, const std::string& where);

  size_t size() const { return api_->size(model_.get()); }  ///< of the vocabulary

  /// The ids of any bytes; DataError when SentencePiece can't.
  std::vector<int32_t> encode(std::string_view text) const;

 private:
  std::shared_ptr<void> library_;
  const SentencepieceApi* api_;  // in library_
  std::unique_ptr<void, void (*)(void*)> model_;
};

}  // namespace mdm
