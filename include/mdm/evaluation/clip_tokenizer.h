// CLIP's tokens: byte pairs (Sennrich et al. 2016) over lower-case text, as OpenAI's and Hugging Face's tokenizers cut
// it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mdm {

/// Immutable; may be shared between threads.
///
/// Text becomes NFC, runs of white space one space, letters lower case (Unicode 15 by utf8proc). It is cut into the
/// contractions 's 't 're 've 'm 'll 'd, runs of letters, single digits, and runs of what else is not white space; each
/// piece's bytes stand for characters of the vocabulary and are joined, best rank first, the last with "</w>".
/// `<|startoftext|>` and `<|endoftext|>` in a text are those tokens, as in Hugging Face's.
/// Bytes that are not UTF-8 become U+FFFD.
class ClipTokenizer {
 public:
  static constexpr size_t kMaxCaptionBytes = size_t{1} << 20;

  /// From a Hugging Face folder: vocab.json and merges.txt, or else tokenizer.json. ConfigError when there are neither,
  /// or they are no such files.
  static ClipTokenizer open(const std::filesystem::path& folder);
  ClipTokenizer(ClipTokenizer&&) noexcept;
  ClipTokenizer& operator=(ClipTokenizer&&) noexcept;
  ~ClipTokenizer();

  /// Start token, the text's, end token; of more than `most` tokens the text's last ones are left out (`*cut` then is
  /// true), so that the end token stays. DataError above kMaxCaptionBytes.
  std::vector<int32_t> encode(std::string_view text, size_t most = 77, bool* cut = nullptr) const;
  int64_t vocab_size() const;

 private:
  struct Impl;
  explicit ClipTokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
