// The blocks are those of IANA's special-purpose address registries (RFC 6890 and its updates).
#include "net/address.h"

#include <netinet/in.h>

#include <cstdint>
#include <cstring>

namespace mdm::net {
namespace {

struct Block {
  uint32_t first;
  int bits;
};

constexpr Block kNotPublic[] = {
    {0x00000000, 8},   // "this network"
    {0x0A000000, 8},   // private
    {0x64400000, 10},  // shared by carriers
    {0x7F000000, 8},   // loopback
    {0xA9FE0000, 16},  // link-local, with the clouds' metadata services
    {0xAC100000, 12},  // private
    {0xC0000000, 24},  // protocol assignments
    {0xC0000200, 24},  // documentation
    {0xC0586300, 24},  // 6to4 relays
    {0xC0A80000, 16},  // private
    {0xC6120000, 15},  // benchmarks
    {0xC6336400, 24},  // documentation
    {0xCB007100, 24},  // documentation
    {0xE0000000, 4},   // multicast
    {0xF0000000, 4},   // reserved, broadcast
};

bool is_public_v4(uint32_t address) {
  for (const Block& block : kNotPublic) {
    if ((address ^ block.first) >> (32 - block.bits) == 0) return false;
  }
  return true;
}

uint32_t v4_at(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) << 24 | static_cast<uint32_t>(bytes[1]) << 16 |
         static_cast<uint32_t>(bytes[2]) << 8 | bytes[3];
}

bool is_public_v6(const uint8_t* bytes) {
  constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  constexpr uint8_t kNat64[12] = {0, 0x64, 0xFF, 0x9B};
  if (std::memcmp(bytes, kMapped, 12) == 0 || std::memcmp(bytes, kNat64, 12) == 0)
    return is_public_v4(v4_at(bytes + 12));
  if ((bytes[0] & 0xE0) != 0x20) return false;  // only 2000::/3 is given out to the public
  const uint32_t front = v4_at(bytes);
  if (front >> 9 == 0x20010000u >> 9) return false;  // 2001::/23: Teredo and protocol assignments
  if (front == 0x20010DB8u) return false;            // documentation
  if (front >> 16 == 0x2002u) return false;          // 6to4, which wraps any IPv4 address
  return front >> 12 != 0x3FFF0u;                    // 3fff::/20: documentation
}

}  // namespace

bool is_public(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof v4);
    return is_public_v4(ntohl(v4.sin_addr.s_addr));
  }
  if (address->sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, address, sizeof v6);
    return is_public_v6(v6.sin6_addr.s6_addr);
  }
  return false;
}

}  // namespace mdm::net
