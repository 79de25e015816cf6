// The memory of unpickled values, and looking keys up in them.
#include "checkpoint/pickle.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint {

const Value* Value::find(std::string_view key) const {
  if (kind != Kind::kDict) return nullptr;
  for (size_t i = items.size(); i >= 2; i -= 2) {
    if (items[i - 2]->is_string(key)) return items[i - 1];
  }
  return nullptr;
}

void ValueArena::charge(size_t bytes) {
  if (bytes > max_bytes_ - used_) {
    fail<CheckpointError>(place_, ": the pickle holds so many values that they need more than ", max_bytes_ >> 20,
                          " MiB, out of proportion to the file");
  }
  used_ += bytes;
}

Value* ValueArena::make(Kind kind) {
  charge(sizeof(Value));
  Value& value = values_.emplace_back();
  value.kind = kind;
  return &value;
}

Value* ValueArena::singleton(Value*& slot, Kind kind, int64_t value) {
  if (slot == nullptr) {
    slot = make(kind);
    slot->integer = value;
  }
  return slot;
}

Value* ValueArena::small_int(uint8_t value) { return singleton(small_ints_[value], Kind::kInt, value); }

void ValueArena::append(Value* container, Value* item) {
  // A growing vector holds its old and its new block at once: up to three times the items.
  if (container->items.size() == container->items.capacity()) {
    charge(sizeof(Value*) * (container->items.empty() ? 2 : 3 * container->items.size()));
  }
  container->items.push_back(item);
}

std::string_view ValueArena::keep(std::string text) {
  charge(text.size() + sizeof(std::string));
  return texts_.emplace_back(std::move(text));
}

}  // namespace mdm::checkpoint
