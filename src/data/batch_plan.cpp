#include "mdm/data/batch_plan.h"

#include <algorithm>

#include "mdm/core/error.h"
#include "mdm/core/random.h"

namespace mdm {
namespace {

// The layer of the address under which the batches of an epoch are shuffled; buckets have 0, 1, ...
constexpr uint32_t kBatchesLayer = 0xFFFFFFFF;

uint64_t quotient_up(unsigned __int128 a, uint64_t b) { return static_cast<uint64_t>((a + b - 1) / b); }

}  // namespace

// Six rounds a bit bring the distance from a uniform permutation below what any test here or elsewhere sees
// (Hoang et al., theorem 2); a few more make small n even.
KeyedPermutation::KeyedPermutation(uint64_t n, uint64_t seed, uint64_t epoch, uint32_t layer) : n_(n) {
  size_t bits = 1;
  while (bits < 64 && n >> bits != 0) ++bits;
  RandomAddress address;
  address.seed = seed;
  address.step = epoch;
  address.layer = layer;
  address.stream = RandomStream::kShuffle;
  random_bits(address, 0, key_, 2);
  offsets_.resize(6 * bits + 24);
  for (size_t r = 0; r < offsets_.size(); ++r) offsets_[r] = random_below(address, r + 1, n);
}

uint64_t KeyedPermutation::operator()(uint64_t i) const {
  for (size_t r = 0; r < offsets_.size(); ++r) {
    const uint64_t partner = offsets_[r] >= i ? offsets_[r] - i : offsets_[r] + n_ - i;
    const uint64_t name = std::max(i, partner);  // of the pair
    const auto bits =
        philox4x32({static_cast<uint32_t>(name), static_cast<uint32_t>(name >> 32), static_cast<uint32_t>(r), 0},
                   {key_[0], key_[1]});
    if ((bits[0] & 1) != 0) i = partner;
  }
  return i;
}

BatchPlan::BatchPlan(const CaptionTable& captions, const ReaderConfig& reader, uint64_t seed, int64_t rows)
    : rows_(rows), seed_(seed), shuffle_(reader.shuffle && reader.compat == ReaderCompat::kNone) {
  if (rows < 1) fail<ConfigError>("a batch of ", rows, " rows is not possible");
  const bool one = reader.token_buckets.empty() || reader.compat != ReaderCompat::kNone;
  std::vector<Bucket> buckets(one ? 1 : reader.token_buckets.size());
  for (size_t b = 0; b < buckets.size() && !one; ++b) buckets[b].token_length = reader.token_buckets[b];
  for (size_t i = 0; i < captions.size(); ++i) {
    if (!captions.kept(i)) continue;
    size_t b = 0;
    while (b + 1 < buckets.size() && captions.tokens(i) > buckets[b].token_length) ++b;
    buckets[b].samples.push_back(static_cast<uint32_t>(i));
  }
  for (Bucket& bucket : buckets) {
    if (bucket.samples.empty()) continue;
    bucket.before = samples_;
    samples_ += bucket.samples.size();
    buckets_.push_back(std::move(bucket));
  }
  if (samples_ == 0) {
    fail<ConfigError>("no sample is left: all ", captions.size(),
                      " captions are longer than reader_config.max_caption_length = ", reader.max_caption_length,
                      " or max_token_length = ", reader.max_token_length, " (or the largest of token_buckets) allows");
  }
}

uint64_t BatchPlan::batches_before(const Bucket& bucket, uint64_t epoch) const {
  const auto samples = static_cast<unsigned __int128>(bucket.samples.size());
  return quotient_up(samples * epoch, static_cast<uint64_t>(rows_));
}

uint64_t BatchPlan::first_step(uint64_t epoch) const {
  uint64_t steps = 0;
  for (const Bucket& bucket : buckets_) steps += batches_before(bucket, epoch);
  return steps;
}

// The last epoch whose first step is not above `step`: with batches larger than the data set several epochs have the
// same first step, and all but the last of them are empty.
uint64_t BatchPlan::epoch(uint64_t step) const {
  // first_step(e) >= e * samples / rows, so the epoch is not above this.
  uint64_t high =
      static_cast<uint64_t>((static_cast<unsigned __int128>(step) + 1) * static_cast<uint64_t>(rows_) / samples_) + 1;
  uint64_t low = 0;
  while (low < high) {
    const uint64_t middle = low + (high - low + 1) / 2;
    if (first_step(middle) <= step) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

BatchPlan::Place BatchPlan::place(uint64_t step) const {
  const uint64_t now = epoch(step);
  const uint64_t first = first_step(now);
  uint64_t i = step - first;
  if (shuffle_ && buckets_.size() > 1) {
    i = KeyedPermutation(first_step(now + 1) - first, seed_, now, kBatchesLayer)(i);
  }
  for (size_t b = 0;; ++b) {
    const uint64_t begin = batches_before(buckets_[b], now);
    const uint64_t count = batches_before(buckets_[b], now + 1) - begin;
    if (i < count) return {b, begin + i};
    i -= count;
  }
}

int64_t BatchPlan::token_length(uint64_t step) const { return buckets_[place(step).bucket].token_length; }

std::vector<PlannedSample> BatchPlan::slice(uint64_t step, int64_t first, int64_t count) const {
  if (first < 0 || count < 0 || first > rows_ || count > rows_ - first) {
    fail<Error>("rows ", first, " to ", first + count, " of a batch of ", rows_);
  }
  const Place where = place(step);
  const Bucket& bucket = buckets_[where.bucket];
  const uint64_t size = bucket.samples.size();
  std::vector<PlannedSample> rows;
  rows.reserve(static_cast<size_t>(count));
  uint64_t position = where.batch * static_cast<uint64_t>(rows_) + static_cast<uint64_t>(first);
  while (rows.size() < static_cast<size_t>(count)) {
    const uint64_t now = position / size;
    const KeyedPermutation order(size, seed_, now, static_cast<uint32_t>(where.bucket));
    for (; position / size == now && rows.size() < static_cast<size_t>(count); ++position) {
      const uint64_t place_in_epoch = position % size;
      const uint64_t chosen = shuffle_ ? order(place_in_epoch) : place_in_epoch;
      rows.push_back({bucket.samples[chosen], now * samples_ + bucket.before + place_in_epoch});
    }
  }
  return rows;
}

}  // namespace mdm
