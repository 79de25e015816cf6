#include "training/arena_layout.h"

#include <ATen/ops/as_strided.h>

#include <algorithm>
#include <utility>

namespace mdm {
namespace {

// Slots begin at multiples of 64 bytes in every buffer, bfloat16 ones too.
constexpr int64_t kSlotAlignment = 32;

int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

int order_of(const ArenaSlot& slot) {
  if (slot.trained()) return slot.rounded ? 0 : 1;
  return slot.segment == ArenaSegment::kFrozen ? 2 : 3;
}

}  // namespace

at::Tensor view_of(const at::Tensor& flat, const ArenaSlot& slot, int64_t offset) {
  return at::as_strided(flat, slot.sizes, slot.strides, flat.storage_offset() + offset).variable_data();
}

int64_t ArenaLayout::room(const ArenaSlot& slot) { return round_up(slot.count, kSlotAlignment); }

ArenaLayout::ArenaLayout(std::vector<ArenaSlot> given, int64_t bucket_numbers, int64_t which_part, int64_t part_count)
    : slots(std::move(given)), part(which_part), parts(part_count) {
  place();
  cut(0, trained_rounded, bucket_numbers);
  cut(trained_rounded, trained, bucket_numbers);
  if (parts == 1) {
    if (trained_rounded > 0) pieces.push_back({0, trained_rounded, 0, true});
    if (trained > trained_rounded) {
      pieces.push_back({trained_rounded, trained - trained_rounded, trained_rounded, false});
    }
  } else {
    for (const ParameterArena::Range& bucket : buckets) pieces.push_back(own_piece(bucket));
  }
}

void ArenaLayout::place() {
  for (size_t i = 0; i < slots.size(); ++i) placement.push_back(i);
  std::stable_sort(placement.begin(), placement.end(),
                   [this](size_t a, size_t b) { return order_of(slots[a]) < order_of(slots[b]); });
  const int64_t unit = kSlotAlignment * parts;
  const auto end_section = [&] {
    total = round_up(total, unit);
    rounded = round_up(rounded, unit);
  };
  int section = 0;
  for (const size_t i : placement) {
    ArenaSlot& slot = slots[i];
    if (order_of(slot) != section) end_section();
    section = order_of(slot);
    slot.offset = total;
    slot.compute_offset = slot.rounded ? rounded : 0;
    total += room(slot);
    if (slot.rounded) rounded += room(slot);
    if (slot.trained()) trained = round_up(total, unit);
    if (slot.trained() && slot.rounded) trained_rounded = trained;
  }
  end_section();
}

void ArenaLayout::cut(int64_t first, int64_t end, int64_t bucket_numbers) {
  const int64_t unit = kSlotAlignment * parts;
  const int64_t most = std::max(bucket_numbers / unit, int64_t{1}) * unit;
  for (; first < end; first += most) buckets.push_back({first, std::min(most, end - first)});
}

// All that lies before a bucket is divided like it, so its own elements begin at a part of its place.
ArenaPiece ArenaLayout::own_piece(const ParameterArena::Range& bucket) const {
  const int64_t count = bucket.count / parts;
  return {bucket.first + part * count, count, bucket.first / parts, bucket.first < trained_rounded};
}

}  // namespace mdm
