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

// (B, L, ...) cut, or filled up with zeros, to `length`; keeps the gradient.
at::Tensor with_length(const at::Tensor& x, int64_t length) {
  const int64_t have = x.size(1);
  if (have == length) return x;
  if (have > length) return x.narrow(1, 0, length).contiguous();
  auto sizes = x.sizes().vec();
  sizes[1] = length - have;
  return at::cat({x, at::zeros(sizes, x.options())}, 1);
}

}  // namespace

TextEncoder::Rows TextEncoder::padded(const std::vector<Row>& rows) const {
  Rows all;
  int64_t longest = 0;
  for (const auto& row : rows) {
    all.lengths.push_back(row.outputs.size(0));
    longest = std::max(longest, row.outputs.size(0));
  }
  const auto count = static_cast<int64_t>(rows.size());
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  all.outputs = at::zeros({count, longest, width()}, options);
  all.mask = at::zeros({count, longest}, options);
  for (int64_t b = 0; b < count; ++b) {
    const Row& row = rows[static_cast<size_t>(b)];
    all.outputs.select(0, b).narrow(0, 0, row.outputs.size(0)).copy_(row.outputs);
    all.mask.select(0, b).narrow(0, 0, row.mask.size(0)).copy_(row.mask);
  }
  return all;
}

TextEmbedding TextEncoder::embedding_of(Rows rows, const PadPolicy& pad) const {
  set_lengths(rows.lengths, pad, forced_length());
  const int64_t longest = rows.lengths.empty() ? 0 : *std::max_element(rows.lengths.begin(), rows.lengths.end());
  return {with_length(rows.outputs, longest), with_length(rows.mask, longest), std::move(rows.lengths)};
}

TextEmbedding TextEncoder::encode(const std::vector<std::string>& captions, const PadPolicy& pad, Use use) {
  return embedding_of(encode_rows(captions, cut_length(pad), use), pad);
}

TextEmbedding TextEncoder::encode_pairs(const std::vector<std::string>& negatives,
                                        const std::vector<std::string>& prompts, const PadPolicy& pad) {
  if (negatives.size() != prompts.size()) {
    fail<ConfigError>(prompts.size(), " prompts have ", negatives.size(), " negative prompts; expected one each");
  }
  std::vector<std::string> captions = negatives;
  captions.insert(captions.end(), prompts.begin(), prompts.end());
  Rows rows = encode_rows(captions, cut_length(pad), Use::kSampling);
  const size_t pairs = prompts.size();
  for (size_t i = 0; i < pairs; ++i) {
    rows.lengths[i] = rows.lengths[pairs + i] = std::max(rows.lengths[i], rows.lengths[pairs + i]);
  }
  return embedding_of(std::move(rows), pad);
}

TextEmbedding TextEncoder::encode_given(const std::vector<at::Tensor>& embeddings, const PadPolicy& pad) {
  const int64_t cut = cut_length(pad);
  const auto shortened = [&](const at::Tensor& t) { return cut >= 0 && t.size(0) > cut ? t.narrow(0, 0, cut) : t; };
  Row empty;
  std::vector<Row> rows;
  for (size_t i = 0; i < embeddings.size(); ++i) {
    if (!embeddings[i].defined()) {
      if (!empty.outputs.defined()) {
        const Rows made = encode_rows({std::string()}, cut, Use::kSampling);
        empty = {made.outputs[0], made.mask[0]};
      }
      rows.push_back(empty);
      continue;
    }
    const at::Tensor& given = embeddings[i];
    if (given.dim() != 2 || given.size(1) != width() || given.size(0) == 0 || !given.is_floating_point()) {
      fail<DataError>("row ", i, " of a batch has a text embedding of shape ", given.sizes(), " and type ",
                      given.dtype(), "; expected (tokens, ", width(), ") of floating point");
    }
    const at::Tensor outputs = shortened(given).to(device(), at::kFloat);
    rows.push_back({outputs, at::ones({outputs.size(0)}, outputs.options())});
  }
  return embedding_of(padded(rows), pad);
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
