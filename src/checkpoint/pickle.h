// A pickle read as inert data. Nothing is imported, called or built: a call that a pickle asks for becomes
// a node that names the callee, unless its meaning is plain data (OrderedDict, bytes, numpy numbers, sets).
// Format: CPython's pickletools (protocols 2 to 5). Free of LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mdm::checkpoint {

enum class Kind : uint8_t {
  kNone,
  kBool,        // integer is 0 or 1
  kInt,         // integer
  kBigInt,      // text: two's complement, little-endian, more than 8 bytes
  kFloat,       // real
  kString,      // text: UTF-8 as the file has it (not checked)
  kBytes,       // text
  kList,        // items
  kTuple,       // items
  kSet,         // items
  kDict,        // items: key, value, key, value, ...; state: attributes set on it (OrderedDict's _metadata)
  kGlobal,      // module + text: a name that the pickle wanted imported
  kPersistent,  // args: what identifies an object stored outside the pickle (torch: a storage)
  kObject,      // callee(args), then state; items: what was appended or set on it
};

// One value. Values may be shared and may contain themselves: whoever walks them needs a budget.
struct Value {
  Kind kind = Kind::kNone;
  bool items_are_pairs = false;  // kObject: the items are keys and values
  union {
    int64_t integer = 0;
    double real;
  };
  std::string_view text, module;
  std::vector<Value*> items;
  Value* callee = nullptr;
  Value* args = nullptr;
  Value* state = nullptr;

  bool is(Kind wanted) const { return kind == wanted; }
  bool is_string(std::string_view wanted) const { return kind == Kind::kString && text == wanted; }
  bool is_global(std::string_view wanted_module, std::string_view wanted_name) const {
    return kind == Kind::kGlobal && module == wanted_module && text == wanted_name;
  }
  // The value of a string key of a dictionary (the last one set), or null.
  const Value* find(std::string_view key) const;
};

// Owns the values of the pickles of a file, so that cycles and depth don't matter when they are freed, and
// bounds their memory.
class ValueArena {
 public:
  // Errors begin with `place`.
  ValueArena(size_t max_bytes, std::string place) : max_bytes_(max_bytes), place_(std::move(place)) {}
  ValueArena(const ValueArena&) = delete;
  ValueArena& operator=(const ValueArena&) = delete;

  Value* make(Kind kind);
  Value* small_int(uint8_t value);  // shared
  Value* none() { return singleton(none_, Kind::kNone, 0); }
  Value* boolean(bool value) { return value ? singleton(true_, Kind::kBool, 1) : singleton(false_, Kind::kBool, 0); }
  Value* empty_tuple() { return singleton(empty_tuple_, Kind::kTuple, 0); }
  void append(Value* container, Value* item);
  // Keeps a string that is not in the file as such.
  std::string_view keep(std::string text);
  // Accounts for memory; CheckpointError when the limit is passed.
  void charge(size_t bytes);

  const std::deque<Value>& values() const { return values_; }

 private:
  Value* singleton(Value*& slot, Kind kind, int64_t value);

  size_t max_bytes_, used_ = 0;
  std::string place_;
  std::deque<Value> values_;
  std::deque<std::string> texts_;
  Value* none_ = nullptr;
  Value* true_ = nullptr;
  Value* false_ = nullptr;
  Value* empty_tuple_ = nullptr;
  Value* small_ints_[256] = {};
};

// Reads one pickle beginning at `offset` of `bytes` and moves `offset` behind its STOP. Texts of the values
// point into `bytes` or the arena. CheckpointError beginning with `place` otherwise.
Value* unpickle(std::string_view bytes, size_t& offset, ValueArena& arena, const std::string& place);

// What callee(args) is when it means plain data; null when it stays a call. (pickle_calls.cpp)
Value* interpret_call(const Value& callee, const Value& args, ValueArena& arena);

}  // namespace mdm::checkpoint
