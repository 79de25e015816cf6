// Numbers of bytes for people.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace mdm::ingest {

/// "12.3 MiB", "1.50 GiB".
inline std::string size_text(uint64_t bytes) {
  char text[32];
  if (bytes < uint64_t{1} << 30) {
    std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / 1048576.0);
  } else {
    std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / 1073741824.0);
  }
  return text;
}

}  // namespace mdm::ingest
