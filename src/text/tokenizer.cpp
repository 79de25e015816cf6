#include "mdm/text/tokenizer.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "mdm/core/utf8.h"

namespace mdm {

TokenLimits token_limits(const ReaderConfig& reader) {
  TokenLimits limits;
  limits.max_caption_length = reader.max_caption_length;
  limits.max_token_length = reader.max_token_length;
  limits.prepad_caption_with_space = reader.prepad_caption_with_space;
  limits.use_tokenizer_scores = reader.use_tokenizer_scores;
  limits.prepad_bos = reader.prepad_bos;
  limits.append_eos = reader.append_eos;
  limits.pad_to_max_length = reader.pad_to_max_length;
  return limits;
}

TokenBatch pad_tokens(const std::vector<std::vector<int32_t>>& rows, int32_t pad_id, int64_t length) {
  if (length < 0) {
    length = 0;
    for (const auto& row : rows) length = std::max(length, static_cast<int64_t>(row.size()));
  }
  TokenBatch batch;
  const auto count = static_cast<int64_t>(rows.size());
  batch.tokens = at::full({count, length}, pad_id, at::TensorOptions().dtype(at::kLong));
  batch.mask = at::zeros({count, length}, at::TensorOptions().dtype(at::kFloat));
  auto* tokens = batch.tokens.data_ptr<int64_t>();
  auto* mask = batch.mask.data_ptr<float>();
  for (int64_t b = 0; b < count; ++b) {
    const auto& row = rows[static_cast<size_t>(b)];
    const auto used = std::min(length, static_cast<int64_t>(row.size()));
    for (int64_t i = 0; i < used; ++i) {
      tokens[b * length + i] = row[static_cast<size_t>(i)];
      mask[b * length + i] = row[static_cast<size_t>(i)] != pad_id ? 1.0F : 0.0F;
    }
    batch.lengths.push_back(used);
  }
  return batch;
}

int64_t padded_length(const std::vector<std::vector<int32_t>>& rows, const TokenLimits& limits) {
  if (limits.pad_to_max_length && limits.max_token_length >= 0) return limits.max_token_length;
  int64_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, static_cast<int64_t>(row.size()));
  return limits.max_token_length >= 0 ? std::min(longest, limits.max_token_length) : longest;
}

std::string_view first_code_points(std::string_view text, int64_t count) {
  if (count < 0) return text;
  size_t at = 0;
  for (; count > 0 && at < text.size(); --count) at += std::max<size_t>(utf8_length(text.substr(at, 4)), 1);
  return text.substr(0, at);
}

}  // namespace mdm
