// The few things that are done with sockets themselves, so that what goes wrong is said in seconds and in words.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace mdm {

// A bound TCP socket for the server of `host`'s port: on the loopback address alone when `host` is one, else on all.
// The caller owns it. DistributedError: the port is in use.
int bind_for(const std::string& host, int64_t port);

// Waits until something accepts connections at the port. DistributedError when the name isn't known, or nothing does
// within `limit`.
void wait_for_listener(const std::string& host, int64_t port, std::chrono::milliseconds limit);

// The address of this machine that `host` is reached from (no packet is sent). DistributedError.
std::string own_address_towards(const std::string& host, int64_t port);

}  // namespace mdm
