// Field numbers are those of TensorFlow's event.proto, summary.proto, tensor.proto and of TensorBoard's
// plugins/hparams/api.proto.
#include "training/event_file.h"

#include <array>
#include <cstring>
#include <type_traits>

#include "mdm/core/utf8.h"

namespace mdm::events {
namespace {

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0x82F63B78u : 0);
    table[i] = value;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = crc_table();

template <typename T>
void put_fixed(std::string& out, T value) {  // little-endian
  static_assert(std::is_unsigned_v<T>);
  for (size_t i = 0; i < sizeof value; ++i) out += static_cast<char>(value >> 8 * i & 0xFF);
}

// A protocol buffer as it is written.
class Message {
 public:
  Message& whole(int field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& real(int field, double value) {
    key(field, 1);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    put_fixed(bytes_, bits);
    return *this;
  }
  Message& single(int field, float value) {
    key(field, 5);
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    put_fixed(bytes_, bits);
    return *this;
  }
  Message& bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  // Readers refuse a message with a text that is no UTF-8.
  Message& text(int field, std::string_view value) {
    if (is_utf8(value)) return bytes(field, value);
    std::string sound;
    while (!value.empty()) {
      const size_t length = utf8_length(value);
      sound += length > 0 ? value.substr(0, length) : std::string_view("\xEF\xBF\xBD");
      value.remove_prefix(length > 0 ? length : 1);
    }
    return bytes(field, sound);
  }
  Message& message(int field, const Message& value) { return bytes(field, value.bytes_); }
  std::string take() { return std::move(bytes_); }

 private:
  void key(int field, int type) { varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(type)); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

constexpr int kEventTime = 1, kEventStep = 2, kEventVersion = 3, kEventSummary = 5, kEventSessionLog = 7;
constexpr int kValueTag = 1, kValueSimple = 2, kValueImage = 4, kValueTensor = 8, kValueMetadata = 9;
constexpr int kTypeFloat = 1, kTypeString = 7;

Message event(double time, int64_t step) {
  Message message;
  message.real(kEventTime, time);
  if (step != 0) message.whole(kEventStep, step);
  return message;
}

std::string with_value(Message event, const Message& value) {
  return event.message(kEventSummary, Message().message(1, value)).take();
}

// SummaryMetadata that hands a value to a plugin of TensorBoard.
Message plugin(std::string_view name, const std::string& content = {}) {
  Message data;
  data.text(1, name);
  if (!content.empty()) data.bytes(2, content);
  return Message().message(1, data);
}

Message protobuf_value(const HparamValue& value) {  // google.protobuf.Value
  Message message;
  if (const auto* flag = std::get_if<bool>(&value)) {
    message.whole(4, *flag ? 1 : 0);
  } else if (const auto* number = std::get_if<double>(&value)) {
    message.real(2, *number);
  } else {
    message.text(3, std::get<std::string>(value));
  }
  return message;
}

int hparam_type(const HparamValue& value) {
  constexpr int kString = 1, kBool = 2, kFloat64 = 3;
  return std::holds_alternative<bool>(value) ? kBool : std::holds_alternative<double>(value) ? kFloat64 : kString;
}

std::string hparams_event(double time, std::string_view tag, Message data) {
  const Message metadata = plugin("hparams", data.take());
  const Message nothing = Message().whole(1, kTypeFloat).message(2, Message()).single(5, 0);
  return with_value(event(time, 0),
                    Message().text(kValueTag, tag).message(kValueTensor, nothing).message(kValueMetadata, metadata));
}

}  // namespace

uint32_t crc32c(std::string_view bytes, uint32_t crc) {
  crc = ~crc;
  for (const char c : bytes) crc = kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF] ^ crc >> 8;
  return ~crc;
}

std::string framed(std::string_view message) {
  const auto masked = [](uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; };
  std::string out;
  out.reserve(message.size() + 16);
  put_fixed(out, static_cast<uint64_t>(message.size()));
  put_fixed(out, masked(crc32c(out)));
  out += message;
  put_fixed(out, masked(crc32c(message)));
  return out;
}

std::string file_version(double time) { return event(time, 0).text(kEventVersion, "brain.Event:2").take(); }

std::string session_start(double time, int64_t step) {
  constexpr int kStart = 1;
  return event(time, step).message(kEventSessionLog, Message().whole(1, kStart)).take();
}

std::string scalars(double time, int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  Message summary;
  for (const auto& [tag, value] : values) {
    summary.message(1, Message().text(kValueTag, tag).single(kValueSimple, static_cast<float>(value)));
  }
  return event(time, step).message(kEventSummary, summary).take();
}

std::string image(double time, int64_t step, std::string_view tag, const Image& image, std::string_view png) {
  Message picture;
  picture.whole(1, image.height).whole(2, image.width).whole(3, image.channels).bytes(4, png);
  return with_value(event(time, step), Message().text(kValueTag, tag).message(kValueImage, picture));
}

std::string text(double time, int64_t step, std::string_view tag, std::string_view text) {
  const Message shape = Message().message(2, Message().whole(1, 1));  // one dimension of size 1
  const Message tensor = Message().whole(1, kTypeString).message(2, shape).text(8, text);
  return with_value(
      event(time, step),
      Message().text(kValueTag, tag).message(kValueTensor, tensor).message(kValueMetadata, plugin("text")));
}

std::vector<std::string> hparams(double time, const std::map<std::string, HparamValue>& values,
                                 const std::vector<std::string>& metrics) {
  constexpr int kExperiment = 2, kSessionStart = 3, kSessionEnd = 4, kRunning = 3;
  Message experiment, start;
  experiment.real(3, time);
  for (const auto& [name, value] : values) {
    experiment.message(4, Message().text(1, name).whole(4, hparam_type(value)));
    start.message(1, Message().text(1, name).message(2, protobuf_value(value)));
  }
  for (const auto& name : metrics) {
    experiment.message(5, Message().message(1, Message().text(2, name)));
  }
  start.real(5, time);
  return {
      hparams_event(time, "_hparams_/experiment", Message().message(kExperiment, experiment)),
      hparams_event(time, "_hparams_/session_start_info", Message().message(kSessionStart, start)),
      hparams_event(time, "_hparams_/session_end_info", Message().message(kSessionEnd, Message().whole(1, kRunning)))};
}

}  // namespace mdm::events
