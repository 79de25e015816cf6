// Which internet addresses are public.
#pragma once

#include <sys/socket.h>

namespace mdm::net {

/// Whether an IPv4 or IPv6 address is one of the internet at large: not loopback, private, link-local, shared,
/// multicast, reserved, nor one of these in IPv6's clothes (mapped, NAT64, 6to4, Teredo). False for other families.
bool is_public(const sockaddr* address);

}  // namespace mdm::net
