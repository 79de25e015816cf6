// Writing pickles: opcodes as CPython's pickletools defines them.
#include "checkpoint/pickle_writer.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

void put_little(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i & 0xFF);
}

// Turns JSON events into pickle instructions as they come.
class ItemEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  ItemEvents(PickleWriter& writer, const std::vector<std::string>& reserved, const std::string& place)
      : writer_(writer), reserved_(reserved), place_(place) {}

  bool start_object(std::size_t) override {
    settle();
    if (++depth_ > 64) wrong("are nested deeper than 64 levels");
    keys_.emplace_back();
    // Whether it is a dictionary or a number that JSON lacks is known at its first key.
    if (depth_ > 1) pending_ = true;
    return true;
  }

  bool key(string_t& name) override {
    if (depth_ == 1 && std::find(reserved_.begin(), reserved_.end(), name) != reserved_.end()) {
      wrong("may not have the key '", name, "'");
    }
    if (!keys_.back().insert(name).second) wrong("have the key '", printable(name), "' twice");
    if (pending_ && (name == "__float__" || name == "__int__")) {
      pending_ = false;
      special_ = name;
      return true;
    }
    settle();
    writer_.text(name);
    return true;
  }

  bool end_object() override {
    if (ended_special_) {
      ended_special_ = false;
    } else {
      settle();
      if (depth_ > 1) writer_.end_dict();
    }
    keys_.pop_back();
    --depth_;
    return true;
  }

  bool start_array(std::size_t) override {
    value();
    if (++depth_ > 64) wrong("are nested deeper than 64 levels");
    keys_.emplace_back();
    writer_.begin_list();
    return true;
  }

  bool end_array() override {
    value();
    writer_.end_list();
    keys_.pop_back();
    --depth_;
    return true;
  }

  bool string(string_t& text) override {
    if (!special_.empty()) {
      special_number(text);
      return true;
    }
    value();
    writer_.text(text);
    return true;
  }
  bool null() override {
    value();
    writer_.none();
    return true;
  }
  bool boolean(bool flag) override {
    value();
    writer_.boolean(flag);
    return true;
  }
  bool number_integer(number_integer_t number) override {
    value();
    writer_.integer(number);
    return true;
  }
  bool number_unsigned(number_unsigned_t number) override {
    value();
    writer_.unsigned_integer(number);
    return true;
  }
  bool number_float(number_float_t number, const string_t&) override {
    value();
    writer_.real(number);
    return true;
  }
  bool binary(binary_t&) override { wrong("hold binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    wrong("are no valid JSON at byte ", position, ": ", printable(error.what()));
  }

 private:
  template <typename... Parts>
  [[noreturn]] void wrong(const Parts&... parts) const {
    fail<CheckpointError>(place_, ": the other items ", parts...);
  }

  void settle() {
    if (ended_special_) wrong("have a number with more than one field");
    if (!pending_) return;
    pending_ = false;
    writer_.begin_dict();
  }

  void value() {
    settle();
    if (depth_ == 0) wrong("are no JSON object");
    if (!special_.empty()) wrong("have a value of ", special_, " that is no text");
  }

  void special_number(const std::string& text) {
    if (special_ == "__int__") {
      if (!writer_.big_integer(text)) wrong("hold '", printable(text, 40), "' as a whole number");
    } else if (text == "nan" || text == "inf" || text == "-inf") {
      const double infinity = __builtin_inf();
      writer_.real(text == "nan" ? __builtin_nan("") : text == "inf" ? infinity : -infinity);
    } else {
      wrong("hold '", printable(text, 40), "' as a number; nan, inf and -inf are possible");
    }
    special_.clear();
    ended_special_ = true;
  }

  PickleWriter& writer_;
  const std::vector<std::string>& reserved_;
  const std::string& place_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string special_;  // "__float__" or "__int__" while its text is expected
  bool pending_ = false, ended_special_ = false;
  int depth_ = 0;
};

}  // namespace

PickleWriter::PickleWriter() : out_("\x80\x02") {}

void PickleWriter::none() { op('N'); }
void PickleWriter::boolean(bool value) { op(value ? 0x88 : 0x89); }

void PickleWriter::integer(int64_t value) {
  if (value >= 0 && value < 256) {
    op('K');
    put_little(out_, static_cast<uint64_t>(value), 1);
  } else if (value >= INT32_MIN && value <= INT32_MAX) {
    op('J');
    put_little(out_, static_cast<uint64_t>(value), 4);
  } else {
    op(0x8a);
    put_little(out_, 8, 1);
    put_little(out_, static_cast<uint64_t>(value), 8);
  }
}

void PickleWriter::unsigned_integer(uint64_t value) {
  if (value <= static_cast<uint64_t>(INT64_MAX)) return integer(static_cast<int64_t>(value));
  op(0x8a);
  put_little(out_, 9, 1);
  put_little(out_, value, 8);
  put_little(out_, 0, 1);  // the sign
}

bool PickleWriter::big_integer(std::string_view digits) {
  const bool negative = !digits.empty() && digits[0] == '-';
  if (negative) digits.remove_prefix(1);
  const bool whole = !digits.empty() && digits.size() <= 600 &&
                     std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!whole) return false;
  std::string bytes;  // little-endian magnitude
  for (const char digit : digits) {
    int carry = digit - '0';
    for (char& byte : bytes) {
      const int product = static_cast<uint8_t>(byte) * 10 + carry;
      byte = static_cast<char>(product & 0xFF);
      carry = product >> 8;
    }
    if (carry > 0) bytes += static_cast<char>(carry);
  }
  bytes += '\0';
  if (negative) {
    int carry = 1;
    for (char& byte : bytes) {
      const int sum = (static_cast<uint8_t>(byte) ^ 0xFF) + carry;
      byte = static_cast<char>(sum & 0xFF);
      carry = sum >> 8;
    }
  }
  op(0x8a);
  put_little(out_, bytes.size(), 1);
  out_ += bytes;
  return true;
}

void PickleWriter::real(double value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  op('G');
  put_little(out_, __builtin_bswap64(bits), 8);
}

void PickleWriter::text(std::string_view value) {
  op('X');
  put_little(out_, value.size(), 4);
  out_ += value;
}

void PickleWriter::begin_list() {
  op(']');
  op('(');
}
void PickleWriter::end_list() { op('e'); }
void PickleWriter::begin_dict() {
  op('}');
  op('(');
}
void PickleWriter::end_dict() { op('u'); }

void PickleWriter::begin_ordered_dict() {
  global("collections", "OrderedDict");
  op(')');
  op('R');
  op('(');
}

void PickleWriter::global(std::string_view module, std::string_view name) {
  op('c');
  out_ += concat(module, "\n", name, "\n");
}

void PickleWriter::sizes(const std::vector<int64_t>& values) {
  op('(');
  for (const int64_t value : values) integer(value);
  op('t');
}

void PickleWriter::tensor(ElementType type, const std::vector<int64_t>& shape, std::string_view key) {
  std::vector<int64_t> strides(shape.size(), 1);
  int64_t numel = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = d + 1 < shape.size() ? strides[d + 1] * std::max<int64_t>(shape[d + 1], 1) : 1;
    numel *= shape[d];
  }
  global("torch._utils", "_rebuild_tensor_v2");
  op('(');
  op('(');
  text("storage");
  global("torch", info(type).torch_storage);
  text(key);
  text("cpu");
  integer(numel);
  op('t');
  op('Q');
  integer(0);  // offset
  sizes(shape);
  sizes(strides);
  boolean(false);                        // requires_grad
  global("collections", "OrderedDict");  // backward hooks
  op(')');
  op('R');
  op('t');
  op('R');
}

std::string PickleWriter::finish() {
  op('.');
  return std::move(out_);
}

void pickle_json_members(PickleWriter& writer, std::string_view json, const std::vector<std::string>& reserved,
                         const std::string& place) {
  ItemEvents events(writer, reserved, place);
  nlohmann::json::sax_parse(json.begin(), json.end(), &events);
}

}  // namespace mdm::checkpoint
