// An internet of the test's own: names resolve to what a test says, and connections to one public address go to the
// loopback. It puts getaddrinfo() and connect() before the C library's, so what libcurl and we look at is unchanged. To
// be included by one source of a program.
#pragma once

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace mdm::test_support {

/// A public address that really is 127.0.0.1.
inline constexpr const char* kPublicAddress = "93.184.216.34";

/// Answers for names, one a question; the last one is given again. A name with an empty list doesn't exist.
inline std::map<std::string, std::vector<std::string>> names;  // NOLINT
inline std::mutex names_mutex;                                 // NOLINT

}  // namespace mdm::test_support

extern "C" int connect(int socket, const sockaddr* address, socklen_t size) {
  sockaddr_in v4{};
  if (address->sa_family == AF_INET && size >= sizeof v4) {
    std::memcpy(&v4, address, sizeof v4);
    if (v4.sin_addr.s_addr == inet_addr(mdm::test_support::kPublicAddress)) {
      v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      return static_cast<int>(::syscall(SYS_connect, socket, &v4, sizeof v4));
    }
  }
  return static_cast<int>(::syscall(SYS_connect, socket, address, size));
}

extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  using Resolver = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto real = reinterpret_cast<Resolver>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  std::string address;
  {
    using mdm::test_support::names;
    const std::lock_guard<std::mutex> lock(mdm::test_support::names_mutex);
    const auto found = node == nullptr ? names.end() : names.find(node);
    if (found == names.end()) return real(node, service, hints, result);
    if (found->second.empty()) return EAI_NONAME;
    address = found->second.front();
    if (found->second.size() > 1) found->second.erase(found->second.begin());
  }
  return real(address.c_str(), service, hints, result);
}
