// Printing pickled values as JSON, within a budget.
#include "checkpoint/value_json.h"

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <unordered_map>

#include "checkpoint/json_text.h"
#include "checkpoint/torch_archive.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

constexpr int kMaxValueDepth = 64;
constexpr size_t kMaxValues = 1'000'000;
constexpr size_t kMaxJsonBytes = size_t{8} << 20;
constexpr size_t kMaxKeyBytes = 1024;
constexpr size_t kMaxOpenPairs = 100'000;  // of all dictionaries that are being written

struct EnumMember {
  std::string_view type;
  int64_t value;
  std::string_view name;
};

// The enums of the reference (ml_mdm/samplers.py) and their values.
constexpr std::array<EnumMember, 11> kEnumMembers = {{
    {"ScheduleType", 0, "COSINE"},
    {"ScheduleType", 2, "DDPM"},
    {"ScheduleType", 3, "DEEPFLOYD"},
    {"ScheduleType", 4, "SIGMOID"},
    {"PredictionType", 3, "DDPM"},
    {"PredictionType", 4, "DDIM"},
    {"PredictionType", 5, "V_PREDICTION"},
    {"ThresholdType", 0, "NONE"},
    {"ThresholdType", 1, "CLIP"},
    {"ThresholdType", 2, "DYNAMIC"},
    {"ThresholdType", 3, "DYNAMIC_IF"},
}};

// Modules are named with the package in newer files and without it in older ones.
bool is_reference_module(std::string_view module, std::string_view name) {
  constexpr std::string_view kPackage = "ml_mdm.";
  if (module.substr(0, kPackage.size()) == kPackage) module.remove_prefix(kPackage.size());
  return module == name;
}

bool is_enum_class(const Value& value) {
  return value.is(Kind::kGlobal) && is_reference_module(value.module, "samplers") &&
         std::any_of(kEnumMembers.begin(), kEnumMembers.end(),
                     [&](const auto& member) { return member.type == value.text; });
}

// Two's complement, little-endian, as decimal digits.
std::string decimal(std::string_view bytes) {
  std::string number(bytes);
  const bool negative = !number.empty() && (number.back() & 0x80) != 0;
  if (negative) {
    int carry = 1;
    for (char& byte : number) {
      const int sum = (static_cast<uint8_t>(byte) ^ 0xFF) + carry;
      byte = static_cast<char>(sum & 0xFF);
      carry = sum >> 8;
    }
  }
  std::string digits;
  while (!number.empty()) {
    int rest = 0;
    for (size_t i = number.size(); i-- > 0;) {
      const int part = rest << 8 | static_cast<uint8_t>(number[i]);
      number[i] = static_cast<char>(part / 10);
      rest = part % 10;
    }
    digits += static_cast<char>('0' + rest);
    while (!number.empty() && number.back() == 0) number.pop_back();
  }
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits.empty() ? "0" : digits;
}

std::string global_name(const Value& global) {
  return concat(global.module.substr(0, kMaxKeyBytes), ".", global.text.substr(0, kMaxKeyBytes));
}

class JsonWriter {
 public:
  explicit JsonWriter(const Value* tensors) : tensors_(tensors) {}

  void write(const Value& value, int depth) {
    if (++values_ > kMaxValues) return cut("too many values");
    if (out.size() > max_bytes_) return cut("too long");
    if (depth > kMaxValueDepth) return cut("too deep");
    switch (value.kind) {
      case Kind::kNone: out += "null"; return;
      case Kind::kBool: out += value.integer != 0 ? "true" : "false"; return;
      case Kind::kInt: out += std::to_string(value.integer); return;
      case Kind::kFloat: append_json_number(out, value.real); return;
      case Kind::kString: text(value.text); return;
      case Kind::kBigInt: big_int(value.text); return;
      case Kind::kBytes: bytes(value.text); return;
      case Kind::kList:
      case Kind::kTuple: list(value, depth); return;
      case Kind::kSet:
        out += R"({"__set__": )";
        list(value, depth);
        out += '}';
        return;
      case Kind::kDict:
        out += '{';
        pairs(value, depth, true);
        out += '}';
        return;
      case Kind::kGlobal:
        out += R"({"__global__": )";
        append_json_string(out, global_name(value));
        out += '}';
        return;
      case Kind::kPersistent: out += R"({"__class__": "torch.Storage"})"; return;
      case Kind::kObject: object(value, depth); return;
    }
  }

  std::string out;

 private:
  void cut(const char* reason) { out += concat(R"({"__cut__": ")", reason, "\"}"); }

  void text(std::string_view content) {
    if (content.size() > max_bytes_ - std::min(out.size(), max_bytes_)) return cut("too long");
    append_json_string(out, content);
  }

  void big_int(std::string_view content) {
    if (content.size() > 256) return cut("too many digits");
    if (content.size() == 9 && content[8] == 0) {  // 64 bits without a sign: JSON readers know these
      out += decimal(content);
      return;
    }
    append_key("__int__", true);
    append_json_string(out, decimal(content));
    out += '}';
  }

  void bytes(std::string_view content) {
    constexpr char kHexDigits[] = "0123456789abcdef";
    if (content.size() > (max_bytes_ - std::min(out.size(), max_bytes_)) / 2) return cut("too long");
    append_key("__bytes__", true);
    out += '"';
    for (const char c : content) {
      out += kHexDigits[static_cast<uint8_t>(c) >> 4];
      out += kHexDigits[static_cast<uint8_t>(c) & 15];
    }
    out += "\"}";
  }

  void append_key(std::string_view key, bool first) {
    out += first ? "{" : ", ";
    append_json_string(out, key);
    out += ": ";
  }

  void list(const Value& value, int depth) {
    out += '[';
    for (size_t i = 0; i < value.items.size(); ++i) {
      if (i > 0) out += ", ";
      write(*value.items[i], depth + 1);
      if (exhausted()) break;
    }
    out += ']';
  }

  bool exhausted() const { return values_ > kMaxValues || out.size() > max_bytes_; }

  // A key that is no text, as text: 3 -> "3", (1, 2) -> "[1, 2]".
  std::string key_text(const Value& key, int depth) {
    JsonWriter inner(tensors_);
    inner.values_ = values_;
    inner.max_bytes_ = kMaxKeyBytes;
    inner.write(key, depth + 1);
    values_ = inner.values_;
    inner.out.resize(std::min(inner.out.size(), kMaxKeyBytes));
    return std::move(inner.out);
  }

  // Whether the dictionary of tensors holds nothing else, so that nothing of it would be shown.
  bool only_tensors() {
    if (!only_tensors_) {
      only_tensors_ = true;
      for (size_t i = 1; i < tensors_->items.size(); i += 2) {
        if (!is_tensor(*tensors_->items[i])) only_tensors_ = false;
      }
    }
    return *only_tensors_;
  }

  bool left_out(const Value& dictionary, const Value& value) {
    return (&value == tensors_ && only_tensors()) || (&dictionary == tensors_ && is_tensor(value));
  }

  void pairs(const Value& value, int depth, bool first) {
    const size_t count = value.items.size() / 2;
    if (open_pairs_ + count > kMaxOpenPairs) {
      if (!first) out += ", ";
      out += R"("__cut__": "too many items")";
      return;
    }
    open_pairs_ += count;
    // A key that is set again has its last value, as in Python.
    std::unordered_map<std::string_view, size_t> last;
    std::deque<std::string> other_keys;  // of what is no text
    std::vector<std::string_view> keys(count);
    for (size_t k = 0; k < count && !exhausted(); ++k) {
      const Value& key = *value.items[2 * k];
      if (left_out(value, *value.items[2 * k + 1])) continue;
      keys[k] = key.is(Kind::kString) ? key.text.substr(0, kMaxKeyBytes)
                                      : std::string_view(other_keys.emplace_back(key_text(key, depth)));
      last[keys[k]] = k;
    }
    for (size_t k = 0; k < count && !exhausted(); ++k) {
      const auto found = last.find(keys[k]);
      if (found == last.end() || found->second != k) continue;
      if (!first) out += ", ";
      first = false;
      append_json_string(out, keys[k]);
      out += ": ";
      write(*value.items[2 * k + 1], depth + 1);
    }
    open_pairs_ -= count;
  }

  void object(const Value& value, int depth) {
    if (const auto summary = summarize_tensor(value)) {
      out += R"({"__class__": "torch.Tensor", "dtype": )";
      append_json_string(out, summary->dtype);
      out += R"(, "shape": [)";
      for (size_t d = 0; d < summary->shape.size(); ++d) out += concat(d > 0 ? ", " : "", summary->shape[d]);
      out += "]}";
      return;
    }
    if (const std::string_view member = enum_member(value); !member.empty()) return append_json_string(out, member);
    const bool fields = value.state != nullptr && value.state->is(Kind::kDict);
    if (fields && is_config_class(*value.callee)) return write(*value.state, depth);

    append_key("__class__", true);
    if (value.callee->is(Kind::kGlobal)) {
      append_json_string(out, global_name(*value.callee));
    } else {
      write(*value.callee, depth + 1);
    }
    if (!value.args->items.empty()) part("__args__", *value.args, depth);
    if (!value.items.empty()) {
      out += R"(, "__items__": )";
      out += value.items_are_pairs ? "{" : "[";
      if (value.items_are_pairs) {
        pairs(value, depth, true);
      } else {
        for (size_t i = 0; i < value.items.size() && !exhausted(); ++i) {
          if (i > 0) out += ", ";
          write(*value.items[i], depth + 1);
        }
      }
      out += value.items_are_pairs ? "}" : "]";
    }
    if (fields) {
      pairs(*value.state, depth, false);
    } else if (value.state != nullptr) {
      part("__state__", *value.state, depth);
    }
    out += '}';
  }

  void part(std::string_view key, const Value& value, int depth) {
    append_key(key, false);
    write(value, depth + 1);
  }

  const Value* tensors_;
  std::optional<bool> only_tensors_;
  size_t values_ = 0, open_pairs_ = 0, max_bytes_ = kMaxJsonBytes;
};

}  // namespace

bool is_config_class(const Value& global) {
  if (!global.is(Kind::kGlobal)) return false;
  if (global.is_global("argparse", "Namespace")) return true;
  const auto in = [&](std::string_view module, std::initializer_list<std::string_view> names) {
    return is_reference_module(global.module, module) &&
           std::find(names.begin(), names.end(), global.text) != names.end();
  };
  return in("reader", {"ReaderConfig"}) || in("samplers", {"SamplerConfig"}) ||
         in("diffusion", {"DiffusionConfig", "NestedDiffusionConfig"}) ||
         in("models.unet", {"UNetConfig", "ResNetConfig"}) ||
         in("models.nested_unet",
            {"NestedUNetConfig", "Nested2UNetConfig", "Nested3UNetConfig", "Nested4UNetConfig"}) ||
         in("language_models.transformer", {"TransformerConfig"}) ||
         in("language_models.self_attention", {"SelfAttentionConfig"});
}

std::string_view enum_member(const Value& object) {
  if (!object.is(Kind::kObject) || !object.args->is(Kind::kTuple)) return {};
  const auto& args = object.args->items;
  const auto named = [](std::string_view type, const auto& matches) -> std::string_view {
    for (const auto& member : kEnumMembers) {
      if (member.type == type && matches(member)) return member.name;
    }
    return {};
  };
  if (is_enum_class(*object.callee) && args.size() == 1 && args[0]->is(Kind::kInt)) {
    return named(object.callee->text, [&](const EnumMember& member) { return member.value == args[0]->integer; });
  }
  // Early Python 3.11 wrote getattr(class, 'NAME').
  const bool is_getattr =
      object.callee->is_global("builtins", "getattr") || object.callee->is_global("__builtin__", "getattr");
  if (is_getattr && args.size() == 2 && is_enum_class(*args[0]) && args[1]->is(Kind::kString)) {
    return named(args[0]->text, [&](const EnumMember& member) { return member.name == args[1]->text; });
  }
  return {};
}

std::string value_to_json(const Value& root, const Value* tensors) {
  JsonWriter writer(tensors);
  writer.write(root, 0);
  return std::move(writer.out);
}

}  // namespace mdm::checkpoint
