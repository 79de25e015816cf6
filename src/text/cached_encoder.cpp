// Captions of a data set through T5, or from the disk where they went through it before.
#include <map>

#include "mdm/text/embedding_cache.h"

namespace mdm {

CachedTextEncoder::CachedTextEncoder(std::unique_ptr<T5TextEncoder> encoder, std::unique_ptr<EmbeddingCache> cache)
    : encoder_(std::move(encoder)), cache_(std::move(cache)) {}

int64_t CachedTextEncoder::forced_length() const { return encoder_->forced_length(); }

TextEncoder::Rows CachedTextEncoder::encode_rows(const std::vector<std::string>& captions, int64_t max_length,
                                                 Use use) {
  if (use == Use::kSampling) return encoder_->encode_rows(captions, max_length, use);
  std::map<std::vector<int32_t>, at::Tensor> known;
  std::vector<const std::vector<int32_t>*> ids, wanted;
  for (const auto& caption : captions) {
    const auto [place, fresh] = known.emplace(encoder_->tokens_of(caption, max_length, use), at::Tensor());
    ids.push_back(&place->first);
    if (!fresh) continue;
    if (auto kept = cache_->find(place->first)) {
      place->second = kept->to(device());
    } else {
      wanted.push_back(&place->first);
    }
  }
  const auto made = encoder_->encode_tokens(wanted, /*alone=*/true);
  for (size_t i = 0; i < wanted.size(); ++i) {
    cache_->add(*wanted[i], made[i]);
    known[*wanted[i]] = made[i];
  }
  std::vector<Row> rows;
  for (const auto* row : ids) rows.push_back({known.at(*row), encoder_->mask_of(*row)});
  return padded(rows);
}

}  // namespace mdm
