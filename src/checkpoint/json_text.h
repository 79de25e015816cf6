// Small pieces of JSON: quoting text that may hold any bytes, numbers that read back as they were, and a
// check of JSON that comes from outside. Free of LibTorch.
#pragma once

#include <string>
#include <string_view>

namespace mdm::checkpoint {

// Appends `text` quoted. Bytes that are no UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

// Appends the shortest digits that read back as the same double, with ".0" when they look whole.
// Infinities and NaN, which JSON lacks, become {"__float__": "inf"}, "-inf" and "nan".
void append_json_number(std::string& out, double number);

bool is_utf8(std::string_view text);

// Whether `text` is one JSON object of bounded depth (64) whose keys are unique within their objects.
bool is_plain_json_object(std::string_view text);

}  // namespace mdm::checkpoint
