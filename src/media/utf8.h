// Text from anywhere made into sound UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace mdm::detail {

/// Bytes that are not UTF-8 (overlong forms, surrogates and NUL included) become U+FFFD, one for each run
/// that could have begun a character.
std::string sound_utf8(std::string_view text);

/// ISO 8859-1 to UTF-8.
std::string latin1_to_utf8(std::string_view text);

bool is_ascii(std::string_view text);

}  // namespace mdm::detail
