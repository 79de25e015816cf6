// What all text encoders share: row lengths and padding.
#include "mdm/text/text_encoder.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "mdm/core/error.h"

namespace mdm {
namespace {

void set_lengths(std::vector<int64_t>& lengths, const PadPolicy& pad, int64_t forced) {
  if (forced >= 0) {
    std::fill(lengths.begin(), lengths.end(), forced);
  } else if (pad.mode == PadPolicy::Mode::kFixed) {
    std::fill(lengths.begin(), lengths.end(), pad.length);
  } else if (pad.mode == PadPolicy::Mode::kBatch && !lengths.empty()) {
    std::fill(lengths.begin(), lengths.end(), *std::max_element(lengths.begin(), lengths.end()));
  }
}

int64_t cut_length(const PadPolicy& pad) {
  if (pad.mode != PadPolicy::Mode::kFixed) return -1;
  if (pad.length < 1) fail<ConfigError>("pad: fixed:", pad.length, ": the length must be at least 1");
  return pad.length;
}

}  // namespace

TextEmbedding TextEncoder::assemble(const std::vector<Row>& rows, std::vector<int64_t> lengths) const {
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  TextEmbedding embedding{at::zeros({count, longest, width()}, options), at::zeros({count, longest}, options),
                          std::move(lengths)};
  for (int64_t b = 0; b < count; ++b) {
    const Row& row = rows[static_cast<size_t>(b)];
    const int64_t used = std::min(row.outputs.size(0), longest);
    embedding.lm_outputs.select(0, b).narrow(0, 0, used).copy_(row.outputs.narrow(0, 0, used));
    embedding.lm_mask.select(0, b).narrow(0, 0, used).copy_(row.mask.narrow(0, 0, used));
  }
  return embedding;
}

TextEmbedding TextEncoder::encode(const std::vector<std::string>& captions, const PadPolicy& pad, Use use) {
  const auto rows = encode_rows(captions, cut_length(pad), use);
  std::vector<int64_t> lengths;
  for (const auto& row : rows) lengths.push_back(row.outputs.size(0));
  set_lengths(lengths, pad, forced_length());
  return assemble(rows, std::move(lengths));
}

TextEmbedding TextEncoder::encode_pairs(const std::vector<std::string>& negatives,
                                        const std::vector<std::string>& prompts, const PadPolicy& pad) {
  if (negatives.size() != prompts.size()) {
    fail<ConfigError>(prompts.size(), " prompts have ", negatives.size(), " negative prompts; expected one each");
  }
  std::vector<std::string> captions = negatives;
  captions.insert(captions.end(), prompts.begin(), prompts.end());
  const auto rows = encode_rows(captions, cut_length(pad), Use::kSampling);
  const size_t pairs = prompts.size();
  std::vector<int64_t> lengths(rows.size());
  for (size_t i = 0; i < pairs; ++i) {
    lengths[i] = lengths[pairs + i] = std::max(rows[i].outputs.size(0), rows[pairs + i].outputs.size(0));
  }
  set_lengths(lengths, pad, forced_length());
  return assemble(rows, std::move(lengths));
}

TextEmbedding embedding_from_rows(const std::vector<at::Tensor>& rows, int64_t length) {
  if (rows.empty()) fail<DataError>("a batch of text embeddings has no rows");
  int64_t longest = 0;
  for (const auto& row : rows) {
    if (row.dim() != 2 || row.size(1) != rows[0].size(1)) {
      fail<DataError>("text embeddings of one batch must be matrices of one width; found ", row.sizes(), " beside ",
                      rows[0].sizes());
    }
    longest = std::max(longest, row.size(0));
  }
  if (length >= 0) longest = length;
  const auto count = static_cast<int64_t>(rows.size());
  const auto options = at::TensorOptions().dtype(at::kFloat).device(rows[0].device());
  TextEmbedding embedding{at::zeros({count, longest, rows[0].size(1)}, options), at::zeros({count, longest}, options),
                          std::vector<int64_t>(rows.size(), longest)};
  for (int64_t b = 0; b < count; ++b) {
    const auto& row = rows[static_cast<size_t>(b)];
    const int64_t used = std::min(row.size(0), longest);
    embedding.lm_outputs.select(0, b).narrow(0, 0, used).copy_(row.narrow(0, 0, used));
    embedding.lm_mask.select(0, b).narrow(0, 0, used).fill_(1);
  }
  return embedding;
}

}  // namespace mdm
