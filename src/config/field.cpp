// Reading and writing the value of one setting.
#include "config/field.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>

#include "mdm/core/error.h"
#include "mdm/core/utf8.h"

namespace mdm::settings {
namespace {

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Without the '_' that may stand between digits; nothing when one stands elsewhere.
std::optional<std::string> plain_digits(std::string_view text) {
  const auto digit = [&](size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || !digit(i - 1) || !digit(i + 1)) {
      return std::nullopt;
    }
  }
  return out;
}

std::string shown(const Value& value) {
  switch (value.kind) {
    case Value::Kind::kNull: return "nothing";
    case Value::Kind::kScalar: return "\"" + printable(value.text, 80) + "\"";
    case Value::Kind::kList: return "a list";
    case Value::Kind::kMap: return "a group of keys";
  }
  return "";
}

// The items of "8,16", "[8, 16]" or, for numbers such as ratios, "2:1".
std::vector<std::string> split_items(std::string_view text, bool colons) {
  text = trimmed(text);
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') text = trimmed(text.substr(1, text.size() - 2));
  std::vector<std::string> items;
  if (text.empty()) return items;
  for (size_t from = 0; from <= text.size();) {
    const size_t to = std::min(text.find_first_of(colons ? ",:" : ",", from), text.size());
    items.emplace_back(trimmed(text.substr(from, to - from)));
    from = to + 1;
  }
  return items;
}

std::string text_of(int64_t number) { return std::to_string(number); }
std::string text_of(double number) { return number_text(number); }
std::string text_of(const std::string& text) { return json_quote(text); }

template <typename T>
std::string json_list(const std::vector<T>& list) {
  std::string out = "[";
  for (const T& item : list) out += (out.size() > 1 ? ", " : "") + text_of(item);
  return out + "]";
}

}  // namespace

bool says_none(std::string_view text) {
  const std::string low = lower_ascii(trimmed(text));
  return low.empty() || low == "none" || low == "null" || low == "~";
}

std::optional<bool> parse_bool(std::string_view text) {
  const std::string low = lower_ascii(trimmed(text));
  if (low == "true" || low == "yes" || low == "on" || low == "1") return true;
  if (low == "false" || low == "no" || low == "off" || low == "0") return false;
  return std::nullopt;
}

std::optional<double> parse_number(std::string_view text) {
  const auto digits = plain_digits(trimmed(text));
  if (!digits || digits->empty()) return std::nullopt;
  double number = 0;
  const char* end = digits->data() + digits->size();
  const auto [at, error] = std::from_chars(digits->data(), end, number);
  if (error != std::errc() || at != end || !std::isfinite(number)) return std::nullopt;
  return number;
}

std::optional<int64_t> parse_int(std::string_view text) {
  const auto digits = plain_digits(trimmed(text));
  if (!digits || digits->empty()) return std::nullopt;
  int64_t number = 0;
  const char* end = digits->data() + digits->size();
  const auto [at, error] = std::from_chars(digits->data(), end, number);
  if (error == std::errc() && at == end) return number;
  const auto real = parse_number(text);
  constexpr double kExact = 9007199254740992.0;  // doubles are exact integers up to 2^53
  if (!real || std::floor(*real) != *real || std::abs(*real) > kExact) return std::nullopt;
  return static_cast<int64_t>(*real);
}

std::string number_text(double number) {
  char buffer[40];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, number);
  return std::string(buffer, result.ptr);
}

std::string json_quote(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string enum_number_text(int64_t number) { return "\x01" + std::to_string(number); }

TextRef make_choice(std::vector<Choice<int>> table, std::function<void(int)> set,
                    std::function<std::optional<int>()> get) {
  TextRef ref;
  std::vector<int> seen;
  for (const auto& entry : table) {
    if (std::find(seen.begin(), seen.end(), entry.value) != seen.end()) continue;
    seen.push_back(entry.value);
    ref.choices.emplace_back(entry.name);
  }
  ref.assign = [table, set](const std::string& text) {
    const std::string low = lower_ascii(trimmed(text));
    for (const auto& entry : table) {
      const bool by_number = entry.reference >= 0 && text == enum_number_text(entry.reference);
      if (by_number || low == lower_ascii(entry.name)) return set(entry.value), true;
    }
    return false;
  };
  ref.get = [table, get]() -> std::optional<std::string> {
    const auto value = get();
    for (const auto& entry : table) {
      if (value && entry.value == *value) return entry.name;
    }
    return std::nullopt;
  };
  return ref;
}

std::string Field::allowed() const {
  if (const TextRef* text = std::get_if<TextRef>(&target)) return text->limits;
  const auto bound = [](double number, bool open) { return number_text(number) + (open ? " (excluded)" : ""); };
  if (low_ && high_) return bound(*low_, low_open_) + " to " + bound(*high_, high_open_);
  if (low_) return (low_open_ ? "more than " : "at least ") + number_text(*low_);
  if (high_) return (high_open_ ? "less than " : "at most ") + number_text(*high_);
  return "";
}

std::string Field::check(double number) const {
  const bool low_fails = low_ && (low_open_ ? number <= *low_ : number < *low_);
  const bool high_fails = high_ && (high_open_ ? number >= *high_ : number > *high_);
  return low_fails || high_fails ? number_text(number) + " is out of range; allowed: " + allowed() : "";
}

template <typename Number>
std::string Field::assign_number(const Value& value, Number& number) const {
  constexpr bool kIsInt = std::is_same_v<Number, int64_t>;
  const char* kind = kIsInt ? "an integer" : "a finite number";
  if (value.kind != Value::Kind::kScalar) return shown(value) + " is not " + kind;
  std::optional<Number> parsed;
  if constexpr (kIsInt) {
    parsed = parse_int(value.text);
  } else {
    parsed = parse_number(value.text);
  }
  const std::string limits = allowed();
  if (!parsed) return shown(value) + " is not " + kind + (limits.empty() ? "" : "; allowed: " + limits);
  const std::string wrong = check(static_cast<double>(*parsed));
  if (wrong.empty()) number = *parsed;
  return wrong;
}

template <typename Number>
std::string Field::assign_list(const Value& value, std::vector<Number>& list) const {
  constexpr size_t kMaxItems = 64;
  std::vector<Value> items;
  if (value.kind == Value::Kind::kList) {
    items = value.items;
  } else if (value.kind == Value::Kind::kScalar && !says_none(value.text)) {
    for (std::string& item : split_items(value.text, std::is_same_v<Number, double>)) {
      items.push_back(scalar(std::move(item), Origin()));
    }
  } else if (value.is_map()) {
    return shown(value) + " is not a list of numbers";
  }
  if (items.empty() && not_empty_) return "must hold at least one number";
  if (items.size() > kMaxItems) return concat(items.size(), " items; at most ", kMaxItems, " are allowed");
  std::vector<Number> numbers;
  for (const Value& item : items) {
    Number number = 0;
    const std::string wrong = assign_number(item, number);
    if (!wrong.empty()) return wrong;
    numbers.push_back(number);
  }
  list = std::move(numbers);
  return "";
}

template <typename T>
std::string Field::assign_optional(const Value& value, std::optional<T>& place) const {
  if (value.is_null() || (value.kind == Value::Kind::kScalar && says_none(value.text))) {
    place.reset();
    return "";
  }
  T set{};
  std::string wrong;
  if constexpr (std::is_arithmetic_v<T>) {
    wrong = assign_number(value, set);
  } else {
    wrong = assign_list(value, set);
  }
  if (wrong.empty()) place = std::move(set);
  return wrong;
}

std::string Field::assign_text(const Value& value, std::string& text) const {
  if (value.kind == Value::Kind::kList || value.is_map()) return shown(value) + " is not a text";
  if (!is_utf8(value.text)) return shown(value) + " is not valid UTF-8";
  text = none_is_empty_ && says_none(value.text) ? "" : value.text;
  return "";
}

std::string Field::assign_texts(const Value& value, std::vector<std::string>& texts) const {
  std::vector<std::string> read;
  const auto add = [&](const Value& item) -> std::string {
    if (item.kind != Value::Kind::kScalar) return shown(item) + " is not a text (quote it)";
    if (!is_utf8(item.text)) return shown(item) + " is not valid UTF-8";
    read.push_back(item.text);
    return "";
  };
  std::string wrong;
  if (value.kind == Value::Kind::kList) {
    for (const Value& item : value.items) {
      if (wrong.empty()) wrong = add(item);
    }
  } else if (!value.is_null()) {
    wrong = add(value);
  }
  if (wrong.empty()) texts = std::move(read);
  return wrong;
}

std::string Field::assign_choice(const Value& value, const TextRef& choice) const {
  if (value.kind == Value::Kind::kScalar && choice.assign(value.text)) return "";
  const bool none = value.is_null() || (value.kind == Value::Kind::kScalar && says_none(value.text));
  if (none && choice.reset) {
    choice.reset();
    return "";
  }
  const std::string_view near = nearest_name(value.text, choice.choices);
  return concat(shown(value), " is not one of ", type(), choice.limits.empty() ? "" : ", ", choice.limits,
                near.empty() ? "" : "; did you mean ", near, near.empty() ? "" : "?");
}

std::string Field::assign(const Value& value) const {
  return std::visit(
      [&](const auto& place) -> std::string {
        using Place = std::decay_t<decltype(place)>;
        if constexpr (std::is_same_v<Place, TextRef>) {
          return assign_choice(value, place);
        } else if constexpr (std::is_same_v<Place, bool*>) {
          const auto parsed = value.kind == Value::Kind::kScalar ? parse_bool(value.text) : std::nullopt;
          if (parsed) *place = *parsed;
          return parsed ? "" : shown(value) + " is neither yes nor no";
        } else if constexpr (std::is_same_v<Place, std::string*>) {
          return assign_text(value, *place);
        } else if constexpr (std::is_same_v<Place, std::vector<std::string>*>) {
          return assign_texts(value, *place);
        } else if constexpr (std::is_same_v<Place, int64_t*> || std::is_same_v<Place, double*>) {
          return assign_number(value, *place);
        } else if constexpr (std::is_same_v<Place, std::vector<int64_t>*> ||
                             std::is_same_v<Place, std::vector<double>*>) {
          return assign_list(value, *place);
        } else {
          return assign_optional(value, *place);
        }
      },
      target);
}

std::string Field::json() const {
  return std::visit(
      [](const auto& place) -> std::string {
        using Place = std::decay_t<decltype(place)>;
        if constexpr (std::is_same_v<Place, TextRef>) {
          const auto text = place.get();
          return text ? json_quote(*text) : "null";
        } else if constexpr (std::is_same_v<Place, bool*>) {
          return *place ? "true" : "false";
        } else if constexpr (std::is_same_v<Place, int64_t*> || std::is_same_v<Place, double*> ||
                             std::is_same_v<Place, std::string*>) {
          return text_of(*place);
        } else if constexpr (std::is_same_v<Place, std::optional<int64_t>*> ||
                             std::is_same_v<Place, std::optional<double>*>) {
          return *place ? text_of(**place) : "null";
        } else if constexpr (std::is_same_v<Place, std::optional<std::vector<int64_t>>*>) {
          return *place ? json_list(**place) : "null";
        } else {
          return json_list(*place);
        }
      },
      target);
}

std::string Field::type() const {
  return std::visit(
      [](const auto& place) -> std::string {
        using Place = std::decay_t<decltype(place)>;
        if constexpr (std::is_same_v<Place, TextRef>) {
          std::string all;
          for (const auto& item : place.choices) all += (all.empty() ? "" : "|") + item;
          return all;
        } else if constexpr (std::is_same_v<Place, bool*>) {
          return "yes|no";
        } else if constexpr (std::is_same_v<Place, int64_t*> || std::is_same_v<Place, std::optional<int64_t>*>) {
          return "int";
        } else if constexpr (std::is_same_v<Place, double*> || std::is_same_v<Place, std::optional<double>*>) {
          return "number";
        } else if constexpr (std::is_same_v<Place, std::string*>) {
          return "text";
        } else if constexpr (std::is_same_v<Place, std::vector<std::string>*>) {
          return "text (repeatable)";
        } else if constexpr (std::is_same_v<Place, std::vector<double>*>) {
          return "a:b:...";
        } else {
          return "int,int,...";
        }
      },
      target);
}

}  // namespace mdm::settings
