#include "evaluation/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "mdm/core/error.h"
#include "mdm/core/utf8.h"

namespace mdm::evaluation {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::string as_utf8(std::string_view text) {
  std::string sound;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text.substr(at));
    sound += length == 0 ? kReplacement : text.substr(at, length);
    at += length == 0 ? 1 : length;
  }
  return sound;
}

}  // namespace

std::vector<int32_t> composed_code_points(std::string_view text) {
  const std::string sound = is_utf8(text) ? std::string(text) : as_utf8(text);
  utf8proc_uint8_t* mapped = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(sound.data()), static_cast<utf8proc_ssize_t>(sound.size()),
                   &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  if (length < 0) fail<DataError>("a caption can't be normalised: ", utf8proc_errmsg(length));
  std::vector<int32_t> codes;
  for (utf8proc_ssize_t at = 0; at < length;) {
    utf8proc_int32_t code = 0;
    const auto used = utf8proc_iterate(mapped + at, length - at, &code);
    if (used <= 0) break;
    codes.push_back(code);
    at += used;
  }
  return codes;
}

void append_lower(int32_t code, std::vector<int32_t>& out) {
  constexpr int32_t kDottedI = 0x130, kDot = 0x307;
  if (code == kDottedI) {
    out.insert(out.end(), {'i', kDot});
  } else {
    out.push_back(utf8proc_tolower(code));
  }
}

bool is_letter(int32_t code) {
  const auto category = utf8proc_category(code);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_number(int32_t code) {
  const auto category = utf8proc_category(code);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_space(int32_t code) {
  constexpr int32_t kNextLine = 0x85;
  const auto category = utf8proc_category(code);
  return (code >= '\t' && code <= '\r') || code == kNextLine ||
         (category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP);
}

void append_utf8(int32_t code, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

}  // namespace mdm::evaluation
