#include "mdm/text/t5_text_encoder.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

// Tokens, padding included, that go through the network at a time: enough to keep it busy, few enough
// for the memory of a laptop.
constexpr int64_t kTokensAtATime = 2048;
// Embeddings kept for later calls are dropped when they are more than this.
constexpr int64_t kMostKeptBytes = int64_t{256} << 20;
// Rows that always go through the network together in training.
constexpr size_t kFixedRows = 8;

// Lengths that captions are padded to in training: a multiple of 16.
int64_t fixed_length(size_t length) { return (static_cast<int64_t>(length) + 15) / 16 * 16; }

}  // namespace

T5TextEncoder::T5TextEncoder(std::unique_ptr<const Tokenizer> tokenizer, T5Encoder encoder, const TokenLimits& limits,
                             const std::string& padding_token)
    : tokenizer_(std::move(tokenizer)),
      encoder_(std::move(encoder)),
      limits_(limits),
      pad_id_(tokenizer_->id_of(padding_token)) {
  if (pad_id_ < 0) fail<ConfigError>("padding_token '", printable(padding_token), "' is not in the vocabulary");
  // Vocabularies may end before the embedding does (T5 rounds its rows up), but not the other way round.
  if (tokenizer_->vocab_size() > encoder_.config().vocab_size) {
    fail<ConfigError>("the vocabulary has ", tokenizer_->vocab_size(), " pieces, the text model's embedding only ",
                      encoder_.config().vocab_size, " rows: they don't belong together");
  }
}

std::vector<int32_t> T5TextEncoder::tokens_of(const std::string& caption, int64_t max_length, Use use) const {
  TokenLimits limits = limits_;
  if (max_length >= 0) {
    limits.max_token_length = limits.max_token_length < 0 ? max_length : std::min(limits.max_token_length, max_length);
  }
  std::vector<int32_t> ids;
  // A dropped caption is what sampling has for no prompt, to the token.
  if (use == Use::kSampling || caption.empty()) {
    ids = tokenizer_->encode_inference(caption, limits);
    const auto length = static_cast<int64_t>(ids.size());
    if (length == limits.max_token_length && length > 0 && limits_.append_eos && ids.back() != tokenizer_->eos_id()) {
      log_warning("prompt \"", printable(caption, 60), "\" is cut to ", length, " tokens");
    }
  } else {
    // The reader drops captions over its limits before they come here; what comes is encoded whole, but
    // for a batch plan's shorter length.
    limits.max_caption_length = limits.max_token_length = -1;
    ids = tokenizer_->encode_training(caption, limits).ids;
    if (max_length >= 0 && static_cast<int64_t>(ids.size()) > max_length) ids.resize(static_cast<size_t>(max_length));
  }
  const bool any = std::any_of(ids.begin(), ids.end(), [&](int32_t id) { return id != pad_id_; });
  if (!any) {
    fail<DataError>("caption \"", printable(caption, 60), "\" has no tokens with these settings (max_token_length ",
                    limits.max_token_length, ", append_eos ", limits.append_eos ? "true" : "false", ")");
  }
  return ids;
}

int64_t T5TextEncoder::forced_length() const {
  return limits_.pad_to_max_length && limits_.max_token_length > 0 ? limits_.max_token_length : -1;
}

TextEncoder::Rows T5TextEncoder::encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) {
  std::vector<std::vector<int32_t>> ids;
  for (const auto& caption : captions) ids.push_back(tokens_of(caption, max_length, use));

  std::map<std::vector<int32_t>, Row> known;
  std::vector<const std::vector<int32_t>*> wanted;
  for (const auto& row : ids) {
    const auto kept = use == Use::kSampling ? kept_.find(row) : kept_.end();
    const auto [place, fresh] = known.emplace(row, kept == kept_.end() ? Row() : kept->second);
    if (fresh && kept == kept_.end()) wanted.push_back(&place->first);
  }
  const auto encoded = encode_tokens(wanted, /*alone=*/use == Use::kTraining);
  for (size_t i = 0; i < wanted.size(); ++i) known[*wanted[i]] = {encoded[i], mask_of(*wanted[i])};
  if (use == Use::kSampling) keep(known);

  std::vector<Row> rows;
  for (const auto& row : ids) rows.push_back(known.at(row));
  return padded(rows);
}

at::Tensor T5TextEncoder::mask_of(const std::vector<int32_t>& ids) const {
  return pad_tokens({ids}, pad_id_).mask[0].to(encoder_.device());
}

std::vector<at::Tensor> T5TextEncoder::encode_tokens(const std::vector<const std::vector<int32_t>*>& ids, bool alone) {
  std::vector<size_t> order(ids.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ids[a]->size() < ids[b]->size(); });

  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> rows(ids.size());
  for (size_t begin = 0; begin < order.size();) {
    const int64_t first_length = alone ? fixed_length(ids[order[begin]]->size()) : -1;
    size_t end = begin + 1;
    const auto fits = [&](size_t at) {
      const size_t length = ids[order[at]]->size();
      if (alone) return at - begin < kFixedRows && fixed_length(length) == first_length;
      return static_cast<int64_t>((at - begin + 1) * length) <= kTokensAtATime;
    };
    while (end < order.size() && fits(end)) ++end;
    std::vector<std::vector<int32_t>> group;
    for (size_t i = begin; i < end; ++i) group.push_back(*ids[order[i]]);
    while (alone && group.size() < kFixedRows) group.push_back(group.front());
    const TokenBatch batch = pad_tokens(group, pad_id_, first_length);
    const at::Tensor mask = batch.mask.to(encoder_.device());
    const at::Tensor outputs = encoder_.forward(batch.tokens, mask).mul_(mask.unsqueeze(-1));
    if (!outputs.isfinite().all().item<bool>()) {
      fail<CheckpointError>("the text model gives values that are not finite: its weights are damaged");
    }
    for (size_t i = begin; i < end; ++i) {
      const auto row = static_cast<int64_t>(i - begin);
      rows[order[i]] = outputs.select(0, row).narrow(0, 0, batch.lengths[i - begin]).clone();
    }
    captions_encoded_ += static_cast<int64_t>(end - begin);
    begin = end;
  }
  return rows;
}

void T5TextEncoder::keep(const std::map<std::vector<int32_t>, Row>& rows) {
  for (const auto& [ids, row] : rows) {
    if (!kept_.emplace(ids, row).second) continue;
    kept_bytes_ += static_cast<int64_t>(row.outputs.nbytes());
  }
  if (kept_bytes_ <= kMostKeptBytes) return;
  kept_.clear();
  kept_bytes_ = 0;
}

}  // namespace mdm
