// Trees of settings: look-up and merging.
#include "config/value.h"

#include <utility>

namespace mdm::settings {

std::string Origin::text() const {
  if (!source) return "?";
  return line > 0 ? *source + ":" + std::to_string(line) : *source;
}

const Value* Value::find(std::string_view key) const {
  if (kind != Kind::kMap) return nullptr;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] == key) return &items[i];
  }
  return nullptr;
}

Value* Value::find(std::string_view key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

Value& Value::set(std::string_view key, Value value) {
  if (kind != Kind::kMap) {
    kind = Kind::kMap;
    text.clear();
    items.clear();
  }
  if (Value* old = find(key)) return *old = std::move(value);
  keys.emplace_back(key);
  items.push_back(std::move(value));
  return items.back();
}

Value& Value::at_path(std::string_view path) {
  Value* at = this;
  while (!path.empty()) {
    const size_t dot = path.find('.');
    const std::string_view key = path.substr(0, dot);
    Value* next = at->find(key);
    at = next ? next : &at->set(key, Value());
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return *at;
}

const Value* Value::find_path(std::string_view path) const {
  const Value* at = this;
  while (at && !path.empty()) {
    const size_t dot = path.find('.');
    at = at->find(path.substr(0, dot));
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return at;
}

void Value::merge(const Value& later) {
  if (!is_map() || !later.is_map()) {
    *this = later;
    return;
  }
  for (size_t i = 0; i < later.keys.size(); ++i) {
    Value* old = find(later.keys[i]);
    if (old) {
      old->merge(later.items[i]);
    } else {
      set(later.keys[i], later.items[i]);
    }
  }
  origin = later.origin;
}

Value scalar(std::string text, Origin origin) {
  Value value;
  value.kind = Value::Kind::kScalar;
  value.text = std::move(text);
  value.origin = std::move(origin);
  return value;
}

}  // namespace mdm::settings
