// What CLIP's tokenizer asks of Unicode. utf8proc stays behind this header.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mdm::evaluation {

// The code points of a text in normal form C; bytes that are not UTF-8 are U+FFFD.
std::vector<int32_t> composed_code_points(std::string_view text);
// Lower-case forms, letter by letter without regard to what stands around; U+0130 becomes two.
void append_lower(int32_t code, std::vector<int32_t>& out);
bool is_letter(int32_t code);  // \p{L}
bool is_number(int32_t code);  // \p{N}
bool is_space(int32_t code);   // \s
void append_utf8(int32_t code, std::string& out);

}  // namespace mdm::evaluation
