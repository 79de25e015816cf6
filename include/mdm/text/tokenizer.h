// What turns captions into token ids: the interface, its limits, and the padding of a batch.
// The two tokenizers are MdmTokenizer (mdm_tokenizer.h) and T5Tokenizer (t5_tokenizer.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/config/reader_config.h"

namespace mdm {

/// The settings of ReaderConfig that concern text (the reference's ml_mdm/reader.py).
struct TokenLimits {
  /// -1: no limit. Inference: the caption is cut to this many code points. Training: a caption whose
  /// bytes, with a space before and after, are more than this is not kept.
  int64_t max_caption_length = -1;
  /// -1: no limit. Inference: ids are cut to this many. Training: a caption with more ids is not kept.
  int64_t max_token_length = -1;
  bool prepad_caption_with_space = true;  ///< mdm, inference; training always has a space on both sides
  bool use_tokenizer_scores = true;       ///< mdm; false: every piece costs 1 (the fewest pieces win)
  bool prepad_bos = false;                ///< bos_id() in front
  bool append_eos = true;                 ///< eos_id() at the end
  bool pad_to_max_length = false;         ///< pad to max_token_length instead of the longest row
};

TokenLimits token_limits(const ReaderConfig& reader);

/// Where ours differs from the reference on purpose; set by the golden runner only.
struct TokenizerCompat {
  /// `</s>`, `<pad>`, `<unk>` and `<extra_id_N>` written in a caption give their control ids. (Ours
  /// drops these ids: a `<pad>` would make a hole in the mask.)
  bool keep_special_pieces = false;
  /// With max_token_length -1 each list loses its last id (reader.py:236, a slice `[:-1]`).
  bool cut_last_when_unlimited = false;
};

/// A caption of the training set.
struct TrainingTokens {
  std::vector<int32_t> ids;  ///< empty when not kept
  bool kept = true;          ///< false: over max_caption_length or max_token_length; drop the sample
};

/// Any byte string is a caption: invalid UTF-8 and NUL are dropped (mdm) or become the unknown token
/// (t5). Captions over kMaxCaptionBytes throw DataError. Objects are immutable and may be shared
/// between threads.
class Tokenizer {
 public:
  static constexpr size_t kMaxCaptionBytes = size_t{64} << 20;

  virtual ~Tokenizer() = default;
  /// The ids of a prompt, cut to the limits (reader.py: process_text for one text, without padding).
  virtual std::vector<int32_t> encode_inference(std::string_view text, const TokenLimits& limits) const = 0;
  /// The ids of a training caption, never cut (reader.py: _get_dataset).
  virtual TrainingTokens encode_training(std::string_view text, const TokenLimits& limits) const = 0;

  virtual std::string kind() const = 0;    ///< "mdm" or "t5"
  virtual int64_t vocab_size() const = 0;  ///< ids are in [0, vocab_size)
  /// The id of a piece of the vocabulary as it stands there (for mdm with spaces for U+2581), -1 if there is none.
  virtual int32_t id_of(std::string_view piece) const = 0;
  /// The piece of an id in [0, vocab_size) as it stands in the vocabulary (for mdm with spaces for U+2581).
  virtual std::string_view piece(int32_t id) const = 0;
  virtual int32_t pad_id() const = 0;
  virtual int32_t eos_id() const = 0;
  virtual int32_t bos_id() const = 0;  ///< the reference's: `<unk>`
};

/// Rows of ids of one length.
struct TokenBatch {
  at::Tensor tokens;             ///< (B, L) int64
  at::Tensor mask;               ///< (B, L) float: 1 where tokens differ from the pad id
  std::vector<int64_t> lengths;  ///< of the rows before padding, cut to L
};

/// Pads the rows with `pad_id` to `length`, or to the longest when it is -1, and cuts longer ones.
TokenBatch pad_tokens(const std::vector<std::vector<int32_t>>& rows, int32_t pad_id, int64_t length = -1);

/// The length that the reference pads a batch of inference rows to: the longest row, or max_token_length
/// with pad_to_max_length.
int64_t padded_length(const std::vector<std::vector<int32_t>>& rows, const TokenLimits& limits);

/// The first `count` code points of `text` (all when count < 0). A byte that belongs to no well-formed
/// UTF-8 sequence counts as one.
std::string_view first_code_points(std::string_view text, int64_t count);

}  // namespace mdm
