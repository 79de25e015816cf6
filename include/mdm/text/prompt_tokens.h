// How a prompt is cut into tokens: to be shown, without a text encoder's weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mdm/config/reader_config.h"
#include "mdm/config/text_config.h"

namespace mdm {

/// One token of a prompt; `piece` may hold bytes of a part of a character, and has spaces or U+2581 for spaces.
struct PromptToken {
  int32_t id = 0;
  std::string piece;
};

struct PromptTokens {
  std::vector<PromptToken> tokens;  ///< in the order of the rows that cross-attention looks at
  bool cut = false;                 ///< whether the limits left something out
};

/// Gives the tokens that the text encoder of a config would see. Immutable; may be shared between threads.
class PromptTokenizer {
 public:
  /// Null for text that has no tokens (embeddings computed before, class labels). `checkpoint`: where kJoint keeps its
  /// vocabulary. Throws as make_text_encoder() does.
  static std::unique_ptr<const PromptTokenizer> open(const TextConfig& text, const ReaderConfig& reader,
                                                     const std::filesystem::path& checkpoint);

  ~PromptTokenizer();
  PromptTokens tokens(const std::string& prompt) const;

 private:
  struct Impl;
  explicit PromptTokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace mdm
