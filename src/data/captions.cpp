#include "mdm/data/captions.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "data/threads.h"
#include "mdm/core/error.h"
#include "mdm/core/utf8.h"

namespace mdm {
namespace {

constexpr size_t kChunk = 256;  // captions that a thread takes at a time

TokenLimits caption_limits(const ReaderConfig& reader) {
  TokenLimits limits = token_limits(reader);
  if (reader.token_buckets.empty()) return limits;
  if (!std::is_sorted(reader.token_buckets.begin(), reader.token_buckets.end()) || reader.token_buckets.front() < 1) {
    fail<ConfigError>("reader_config.token_buckets must be ascending and at least 1");
  }
  const int64_t largest = reader.token_buckets.back();
  if (limits.max_token_length < 0 || largest < limits.max_token_length) limits.max_token_length = largest;
  return limits;
}

// Ends of the code points of a text; a byte of no well-formed sequence counts as one.
std::vector<uint32_t> code_point_ends(std::string_view text) {
  std::vector<uint32_t> ends = {0};
  for (size_t at = 0; at < text.size();) {
    at += std::max<size_t>(1, utf8_length(text.substr(at)));
    ends.push_back(static_cast<uint32_t>(at));
  }
  return ends;
}

struct Fitted {
  int32_t tokens = -1;  // -1: nothing fits
  uint32_t bytes = 0;
};

// The longest beginning that a search by halves finds within the limits (token counts needn't grow with the text).
Fitted cut_to_fit(std::string_view text, const Tokenizer& tokenizer, const TokenLimits& limits) {
  if (limits.max_caption_length >= 0) {
    text = text.substr(0, static_cast<size_t>(std::max<int64_t>(limits.max_caption_length - 2, 0)));
  }
  const auto ends = code_point_ends(text);
  Fitted best;
  size_t low = 0;
  size_t high = ends.size();
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const auto tokens = tokenizer.encode_training(text.substr(0, ends[middle]), limits);
    if (tokens.kept) {
      best = {static_cast<int32_t>(tokens.ids.size()), ends[middle]};
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return best;
}

// A cut between code points: not inside the sequence that the byte limit falls into.
Fitted fit(std::string_view text, const Tokenizer& tokenizer, const TokenLimits& limits, bool truncate) {
  const auto tokens = tokenizer.encode_training(text, limits);
  if (tokens.kept) return {static_cast<int32_t>(tokens.ids.size()), static_cast<uint32_t>(text.size())};
  if (!truncate) return {};
  Fitted fitted = cut_to_fit(text, tokenizer, limits);
  const auto ends = code_point_ends(text);
  const auto whole = std::upper_bound(ends.begin(), ends.end(), fitted.bytes) - 1;
  if (fitted.tokens >= 0 && *whole != fitted.bytes) {
    fitted.bytes = *whole;
    const auto shorter = tokenizer.encode_training(text.substr(0, fitted.bytes), limits);
    fitted.tokens = shorter.kept ? static_cast<int32_t>(shorter.ids.size()) : -1;
  }
  return fitted;
}

}  // namespace

CaptionTable CaptionTable::make(const Dataset& dataset, const Tokenizer* tokenizer, const ReaderConfig& reader,
                                int threads) {
  const TokenLimits limits = caption_limits(reader);
  CaptionTable table;
  table.tokens_.assign(dataset.size(), 0);
  table.bytes_.resize(dataset.size());
  if (tokenizer == nullptr) {
    if (!reader.token_buckets.empty()) {
      fail<ConfigError>("reader_config.token_buckets need a tokenizer, and this kind of text has none");
    }
    for (size_t i = 0; i < dataset.size(); ++i) table.bytes_[i] = static_cast<uint32_t>(dataset.caption(i).size());
    return table;
  }
  const bool truncate = reader.long_captions == LongCaptions::kTruncate && reader.compat != ReaderCompat::kMlx;
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (size_t start = next.fetch_add(kChunk); start < dataset.size() && !failed; start = next.fetch_add(kChunk)) {
        for (size_t i = start; i < std::min(start + kChunk, dataset.size()); ++i) {
          const Fitted fitted = fit(dataset.caption(i), *tokenizer, limits, truncate);
          table.tokens_[i] = fitted.tokens;
          table.bytes_[i] = fitted.bytes;
        }
      }
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
  const auto machine = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const auto chunks = static_cast<int64_t>((dataset.size() + kChunk - 1) / kChunk);
  detail::run_on_threads(std::min<int64_t>(threads > 0 ? threads : machine, chunks), work);
  if (error) std::rethrow_exception(error);
  for (size_t i = 0; i < dataset.size(); ++i) {
    table.dropped_ += table.tokens_[i] < 0 ? 1 : 0;
    table.truncated_ += table.tokens_[i] >= 0 && table.bytes_[i] < dataset.caption(i).size() ? 1 : 0;
  }
  return table;
}

}  // namespace mdm
