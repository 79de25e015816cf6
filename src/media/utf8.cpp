// Text from anywhere made into sound UTF-8.
#include "media/utf8.h"

#include <algorithm>
#include <cstdint>

namespace mdm::detail {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

// Length of the well-formed character at the start of `text` (Unicode 15, table 3-7), or 0; `wrong` is then
// how many bytes could have begun one, at least 1.
size_t character_length(std::string_view text, size_t& wrong) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  wrong = 1;
  if (lead < 0x80) return lead == 0 ? 0 : 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) return 0;
    ++wrong;
  }
  return length;
}

}  // namespace

std::string sound_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    size_t wrong = 0;
    const size_t length = character_length(text, wrong);
    if (length > 0) {
      out += text.substr(0, length);
    } else {
      out += kReplacement;
    }
    text.remove_prefix(length > 0 ? length : wrong);
  }
  return out;
}

std::string latin1_to_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte == 0) {
      out += kReplacement;
    } else if (byte < 0x80) {
      out.push_back(c);
    } else {
      out.push_back(static_cast<char>(0xC0 | byte >> 6));
      out.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
    }
  }
  return out;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace mdm::detail
