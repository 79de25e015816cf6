// Secrets: numbers nobody can guess, and comparisons that tell nothing by the time they take. libcrypto makes both.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mdm {

/// `bytes` random bytes of the system's cryptographic generator in lower-case hexadecimal. Error when there are none.
std::string random_hex(size_t bytes);

/// Whether two texts are equal, in a time that depends on neither's content, nor on how long `secret` is.
bool equal_in_constant_time(std::string_view secret, std::string_view given);

}  // namespace mdm
