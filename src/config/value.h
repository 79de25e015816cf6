// A tree of settings as read from YAML, JSON or flags, before it is known what they mean.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mdm::settings {

/// Where a value was written.
struct Origin {
  std::shared_ptr<const std::string> source;  ///< file name, "flag --x", ...; null: unknown
  int line = 0;                               ///< 1-based; 0: the source has no lines

  std::string text() const;  ///< "FILE:LINE" or "SOURCE"
};

struct Value {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  std::string text;               ///< of a scalar
  std::vector<std::string> keys;  ///< of a map, with '_' for '-'; the value of keys[i] is items[i]
  std::vector<Value> items;       ///< of a list or map
  Origin origin;                  ///< for a map's value the line of its key
  bool lenient = false;           ///< comes from a checkpoint: when nobody knows its key, that is no error

  bool is_map() const { return kind == Kind::kMap; }
  bool is_null() const { return kind == Kind::kNull; }

  Value* find(std::string_view key);
  const Value* find(std::string_view key) const;
  /// Sets or replaces a key; makes this a map when it is none.
  Value& set(std::string_view key, Value value);
  /// The value at a dotted path, which is made where it is missing.
  Value& at_path(std::string_view path);
  const Value* find_path(std::string_view path) const;
  /// Maps key by key, everything else replaced.
  void merge(const Value& later);
};

Value scalar(std::string text, Origin origin);

}  // namespace mdm::settings
