// How long the captions of a data set are in tokens, and what becomes of those that are too long.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "mdm/config/reader_config.h"
#include "mdm/data/dataset.h"
#include "mdm/text/tokenizer.h"

namespace mdm {

/// For each sample of a data set; immutable.
class CaptionTable {
 public:
  /// Tokenizes all captions once (`threads`: 0 for as many as the machine has). The limits are
  /// ReaderConfig::max_caption_length (bytes, with the two spaces that training adds) and max_token_length, or the
  /// largest of token_buckets where that is smaller. With LongCaptions::kDrop samples over a limit are left out;
  /// with kTruncate their captions are cut between code points, as far back as the limits demand. Without a
  /// tokenizer (class labels, embeddings) there are no token counts: every caption has 0 and is kept, and
  /// token_buckets are a ConfigError.
  static CaptionTable make(const Dataset& dataset, const Tokenizer* tokenizer, const ReaderConfig& reader,
                           int threads = 0);

  bool kept(size_t sample) const { return tokens_[sample] >= 0; }
  /// With the end token and what else the limits count; -1 for samples that are left out.
  int32_t tokens(size_t sample) const { return tokens_[sample]; }
  /// The caption, cut where it was too long.
  std::string_view text(const Dataset& dataset, size_t sample) const {
    return dataset.caption(sample).substr(0, bytes_[sample]);
  }
  uint64_t dropped() const { return dropped_; }
  uint64_t truncated() const { return truncated_; }
  size_t size() const { return tokens_.size(); }

 private:
  std::vector<int32_t> tokens_;
  std::vector<uint32_t> bytes_;
  uint64_t dropped_ = 0;
  uint64_t truncated_ = 0;
};

}  // namespace mdm
