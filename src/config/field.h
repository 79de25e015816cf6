// One setting: its name, where its value lives, what it may be, and what it means. Reading, dumping,
// help and flags all go by this description.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "config/value.h"

namespace mdm::settings {

/// A value that is kept as something else than text, e.g. an enum.
struct TextRef {
  std::function<bool(const std::string&)> assign;   ///< false: the text is wrong
  std::function<std::optional<std::string>()> get;  ///< nothing: unset
  std::function<void()> reset;                      ///< makes it unset; null: it is always set
  std::vector<std::string> choices;                 ///< in the order of the help
  std::string limits;                               ///< of the numbers in them, in words; "" when there are none
};

using Target = std::variant<bool*, int64_t*, double*, std::string*, std::vector<int64_t>*, std::vector<double>*,
                            std::vector<std::string>*, std::optional<int64_t>*, std::optional<double>*,
                            std::optional<std::vector<int64_t>>*, TextRef>;

struct Field {
  Field(std::string field_name, Target field_target, std::string field_doc)
      : name(std::move(field_name)), target(std::move(field_target)), doc(std::move(field_doc)) {}

  Field&& range(double low, double high) && { return low_ = low, high_ = high, std::move(*this); }
  Field&& at_least(double low) && { return low_ = low, std::move(*this); }
  Field&& above(double low) && { return low_ = low, low_open_ = true, std::move(*this); }
  Field&& below(double high) && { return high_ = high, high_open_ = true, std::move(*this); }
  Field&& also(std::vector<std::string> names) && { return aliases = std::move(names), std::move(*this); }
  /// For texts where "" stands for "none": the words None and null do too.
  Field&& unset_by_none() && { return none_is_empty_ = true, std::move(*this); }
  /// For lists that must hold something.
  Field&& not_empty() && { return not_empty_ = true, std::move(*this); }
  /// For names of files and folders that are read.
  Field&& input_file() && { return is_input_file = true, std::move(*this); }

  /// Sets the target. Returns "" or what is wrong, without the field's name.
  std::string assign(const Value& value) const;
  /// The target's value as JSON (which is also YAML).
  std::string json() const;
  std::string type() const;     ///< "int", "number", "yes|no", "text", "A|B|C", "int,int,..."
  std::string allowed() const;  ///< the range in words; "" when anything goes
  std::optional<double> least() const { return low_; }
  std::optional<double> most() const { return high_; }
  bool is_bool() const { return std::holds_alternative<bool*>(target); }
  bool is_text_list() const { return std::holds_alternative<std::vector<std::string>*>(target); }

  std::string name;  ///< as in YAML
  Target target;
  std::string doc;
  std::vector<std::string> aliases;  ///< names that mean the same; the first is the strongest
  bool is_input_file = false;        ///< in a YAML file the name may be relative to that file

 private:
  std::string check(double number) const;
  template <typename Number>
  std::string assign_number(const Value& value, Number& number) const;
  template <typename Number>
  std::string assign_list(const Value& value, std::vector<Number>& list) const;
  template <typename T>
  std::string assign_optional(const Value& value, std::optional<T>& place) const;
  std::string assign_text(const Value& value, std::string& text) const;
  std::string assign_texts(const Value& value, std::vector<std::string>& texts) const;
  std::string assign_choice(const Value& value, const TextRef& choice) const;

  std::optional<double> low_, high_;
  bool low_open_ = false, high_open_ = false, none_is_empty_ = false, not_empty_ = false;
};

/// One name of an enum's value; the first name of a value is the one that is written.
template <typename Enum>
struct Choice {
  const char* name;
  Enum value;
  int reference = -1;  ///< number in the reference's Enum, found in checkpoints; -1: none
};

TextRef make_choice(std::vector<Choice<int>> table, std::function<void(int)> set,
                    std::function<std::optional<int>()> get);

template <typename Enum, size_t N>
std::vector<Choice<int>> as_ints(const Choice<Enum> (&table)[N]) {
  std::vector<Choice<int>> ints;
  for (const auto& entry : table) ints.push_back({entry.name, static_cast<int>(entry.value), entry.reference});
  return ints;
}

template <typename Enum, size_t N>
TextRef choice(Enum& target, const Choice<Enum> (&table)[N]) {
  return make_choice(
      as_ints(table), [&target](int value) { target = static_cast<Enum>(value); },
      [&target] { return std::optional<int>(static_cast<int>(target)); });
}

template <typename Enum, size_t N>
TextRef choice(std::optional<Enum>& target, const Choice<Enum> (&table)[N]) {
  TextRef ref = make_choice(
      as_ints(table), [&target](int value) { target = static_cast<Enum>(value); },
      [&target] { return target ? std::optional<int>(static_cast<int>(*target)) : std::nullopt; });
  ref.reset = [&target] { target.reset(); };
  return ref;
}

/// The name of a value that is written, see Choice.
template <typename Enum, size_t N>
std::string name_in(const Choice<Enum> (&table)[N], Enum value) {
  for (const auto& entry : table) {
    if (entry.value == value) return entry.name;
  }
  return "";
}

/// What an enum's number in a checkpoint is turned into, so that no text can be taken for it.
std::string enum_number_text(int64_t number);

/// "None", "null", "~" or "", in any case: how files and flags say that something is unset.
bool says_none(std::string_view text);
std::optional<bool> parse_bool(std::string_view text);
/// Digits with '_' between them, or an integral number such as 1e6.
std::optional<int64_t> parse_int(std::string_view text);
std::optional<double> parse_number(std::string_view text);
/// The shortest text that reads as the same number.
std::string number_text(double number);
std::string json_quote(std::string_view text);

}  // namespace mdm::settings
