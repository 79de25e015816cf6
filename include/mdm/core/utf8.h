// Whether bytes are text.
#pragma once

#include <cstddef>
#include <string_view>

namespace mdm {

/// Length in bytes of the well-formed UTF-8 sequence at the front of `text` (Unicode 15, table 3-7); 0 when there
/// is none.
size_t utf8_length(std::string_view text);

/// Whether all of `text` is well-formed UTF-8: no overlong forms, surrogates or codes above U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace mdm
