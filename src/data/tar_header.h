// The 512 bytes in front of each member of a tar archive.
#pragma once

#include <algorithm>
#include <cstddef>

namespace mdm::tar {

inline constexpr size_t kBlock = 512;

/// POSIX ustar; v7 and GNU share the first fields. Numbers are octal digits.
struct Header {
  char name[100];
  char mode[8];
  char owner[8];
  char group[8];
  char size[12];
  char time[12];
  char checksum[8];
  char type;
  char link[100];
  char magic[6];
  char version[2];
  char owner_name[32];
  char group_name[32];
  char device_major[8];
  char device_minor[8];
  char prefix[155];
  char unused[12];
};
static_assert(sizeof(Header) == kBlock);

inline bool is_zero(const Header& header) {
  const auto* bytes = reinterpret_cast<const char*>(&header);
  return std::all_of(bytes, bytes + kBlock, [](char c) { return c == 0; });
}

}  // namespace mdm::tar
