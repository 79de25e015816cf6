// The calls in pickles whose result is plain data, worked out here instead of being made.
#include <cstring>
#include <optional>

#include "checkpoint/pickle.h"

namespace mdm::checkpoint {
namespace {

bool is_builtin(const Value& callee, std::string_view name) {
  return callee.is_global("builtins", name) || callee.is_global("__builtin__", name);
}

// OrderedDict(), OrderedDict([(key, value), ...]), defaultdict(factory).
Value* make_dict(const Value& args, bool has_factory, ValueArena& arena) {
  const size_t first = has_factory && !args.items.empty() ? 1 : 0;
  if (args.items.size() > first + 1) return nullptr;
  Value* dict = arena.make(Kind::kDict);
  if (args.items.size() == first) return dict;
  const Value& pairs = *args.items[first];
  if (pairs.kind != Kind::kList && pairs.kind != Kind::kTuple) return nullptr;
  for (const Value* pair : pairs.items) {
    if ((pair->kind != Kind::kList && pair->kind != Kind::kTuple) || pair->items.size() != 2) return nullptr;
    arena.append(dict, pair->items[0]);
    arena.append(dict, pair->items[1]);
  }
  return dict;
}

Value* make_sequence(Kind kind, const Value& args, ValueArena& arena) {
  if (args.items.size() > 1) return nullptr;
  Value* result = arena.make(kind);
  if (args.items.empty()) return result;
  const Value& source = *args.items[0];
  if (source.kind != Kind::kList && source.kind != Kind::kTuple && source.kind != Kind::kSet) return nullptr;
  for (Value* item : source.items) arena.append(result, item);
  return result;
}

// Protocol 2 has no opcode for bytes: Python writes them as text to be encoded in latin-1.
Value* encode_latin1(const Value& args, ValueArena& arena) {
  if (args.items.size() != 2 || !args.items[0]->is(Kind::kString)) return nullptr;
  const Value& codec = *args.items[1];
  if (!codec.is_string("latin1") && !codec.is_string("latin-1") && !codec.is_string("iso-8859-1")) return nullptr;
  const std::string_view text = args.items[0]->text;
  arena.charge(text.size());  // before the work: the same text may be given again and again
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<uint8_t>(text[i]);
    if (lead < 0x80) {
      bytes.push_back(text[i]);
      continue;
    }
    const bool two_bytes =
        (lead == 0xC2 || lead == 0xC3) && i + 1 < text.size() && (static_cast<uint8_t>(text[i + 1]) & 0xC0) == 0x80;
    if (!two_bytes) return nullptr;
    bytes.push_back(static_cast<char>((lead & 0x03) << 6 | (static_cast<uint8_t>(text[++i]) & 0x3F)));
  }
  Value* value = arena.make(Kind::kBytes);
  value->text = arena.keep(std::move(bytes));
  return value;
}

// "f8" of numpy.dtype('f8', False, True) with state (3, '<', None, None, None, -1, -1, 0).
std::optional<std::string_view> numpy_type(const Value& dtype) {
  if (!dtype.is(Kind::kObject) || !dtype.callee->is_global("numpy", "dtype")) return std::nullopt;
  if (dtype.args->items.empty() || !dtype.args->items[0]->is(Kind::kString)) return std::nullopt;
  if (dtype.state != nullptr) {
    const Value& state = *dtype.state;
    if (!state.is(Kind::kTuple) || state.items.size() < 2 || state.items[1]->is_string(">")) return std::nullopt;
  }
  return dtype.args->items[0]->text;
}

template <typename T>
T from_bytes(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

double half_to_double(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const double fraction = bits & 1023;
  double value = 0;
  if (exponent == 31) {
    value = fraction == 0 ? __builtin_inf() : __builtin_nan("");
  } else {
    value = exponent == 0 ? __builtin_ldexp(fraction, -24) : __builtin_ldexp(fraction + 1024, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

// numpy.core.multiarray.scalar(dtype, bytes) as a number.
Value* numpy_scalar(const Value& args, ValueArena& arena) {
  if (args.items.size() != 2 || !args.items[1]->is(Kind::kBytes)) return nullptr;
  const auto type = numpy_type(*args.items[0]);
  const std::string_view bytes = args.items[1]->text;
  if (!type || type->size() != 2 || bytes.size() != static_cast<size_t>((*type)[1] - '0')) return nullptr;
  const auto real = [&](double number) {
    Value* value = arena.make(Kind::kFloat);
    value->real = number;
    return value;
  };
  const auto whole = [&](int64_t number) {
    Value* value = arena.make(Kind::kInt);
    value->integer = number;
    return value;
  };
  if (*type == "f8") return real(from_bytes<double>(bytes));
  if (*type == "f4") return real(static_cast<double>(from_bytes<float>(bytes)));
  if (*type == "f2") return real(half_to_double(from_bytes<uint16_t>(bytes)));
  if (*type == "i8") return whole(from_bytes<int64_t>(bytes));
  if (*type == "i4") return whole(from_bytes<int32_t>(bytes));
  if (*type == "i2") return whole(from_bytes<int16_t>(bytes));
  if (*type == "i1") return whole(from_bytes<int8_t>(bytes));
  if (*type == "u4") return whole(from_bytes<uint32_t>(bytes));
  if (*type == "u2") return whole(from_bytes<uint16_t>(bytes));
  if (*type == "u1") return whole(from_bytes<uint8_t>(bytes));
  if (*type == "b1") return arena.boolean(bytes[0] != 0);
  if (*type == "u8") {
    const auto number = from_bytes<uint64_t>(bytes);
    if (number <= static_cast<uint64_t>(INT64_MAX)) return whole(static_cast<int64_t>(number));
    Value* value = arena.make(Kind::kBigInt);
    value->text = arena.keep(std::string(bytes) + '\0');  // a zero byte more: the sign
    return value;
  }
  return nullptr;
}

}  // namespace

Value* interpret_call(const Value& callee, const Value& args, ValueArena& arena) {
  if (!callee.is(Kind::kGlobal)) return nullptr;
  if (callee.is_global("collections", "OrderedDict")) return make_dict(args, false, arena);
  if (callee.is_global("collections", "defaultdict")) return make_dict(args, true, arena);
  if (callee.is_global("_codecs", "encode")) return encode_latin1(args, arena);
  if (callee.is_global("numpy.core.multiarray", "scalar") || callee.is_global("numpy._core.multiarray", "scalar")) {
    return numpy_scalar(args, arena);
  }
  if (callee.is_global("torch", "Size")) return make_sequence(Kind::kTuple, args, arena);
  if (is_builtin(callee, "set") || is_builtin(callee, "frozenset")) return make_sequence(Kind::kSet, args, arena);
  if ((is_builtin(callee, "bytes") || is_builtin(callee, "bytearray")) && args.items.size() <= 1) {
    if (args.items.empty()) return arena.make(Kind::kBytes);
    if (args.items[0]->is(Kind::kBytes)) {
      Value* value = arena.make(Kind::kBytes);
      value->text = args.items[0]->text;
      return value;
    }
  }
  return nullptr;
}

}  // namespace mdm::checkpoint
