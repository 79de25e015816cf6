#include "distributed/sockets.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

using Clock = std::chrono::steady_clock;
using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

constexpr auto kRetry = std::chrono::milliseconds(200);
constexpr auto kFirstWord = std::chrono::seconds(10);  // silence until a user is told what is waited for

class Socket {
 public:
  Socket(int family, int type) : handle_(::socket(family, type | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (handle_ >= 0) ::close(handle_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return handle_; }
  int release() { return std::exchange(handle_, -1); }

 private:
  int handle_;
};

std::string place(const std::string& host, int64_t port) { return concat(printable(host), ":", port); }

Addresses resolve(const std::string& host, int64_t port, int type) {
  addrinfo hints{};
  hints.ai_socktype = type;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) {
    fail<DistributedError>("the address of rank 0, ", place(host, port),
                           ", can't be found: ", code == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(code));
  }
  return {found, &::freeaddrinfo};
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return (ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24) == 127;
  }
  return address->sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

// 0, or errno of the last address tried.
int connect_once(const addrinfo* addresses, std::chrono::milliseconds limit) {
  int code = ENOENT;
  for (const addrinfo* a = addresses; a != nullptr; a = a->ai_next) {
    const Socket socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK);
    if (socket.get() < 0) {
      code = errno;
      continue;
    }
    if (::connect(socket.get(), a->ai_addr, a->ai_addrlen) == 0) return 0;
    code = errno;
    if (code != EINPROGRESS) continue;
    pollfd wait{socket.get(), POLLOUT, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(limit.count()));
    socklen_t size = sizeof code;
    if (ready == 1 && ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &code, &size) == 0 && code == 0) return 0;
    if (ready != 1) code = ETIMEDOUT;
  }
  return code;
}

}  // namespace

int bind_for(const std::string& host, int64_t port) {
  const Addresses addresses = resolve(host, port, SOCK_STREAM);
  const bool loopback = is_loopback(addresses->ai_addr);
  // All addresses of both kinds, where the system has IPv6.
  for (const int family : {loopback ? addresses->ai_family : AF_INET6, AF_INET}) {
    Socket socket(family, SOCK_STREAM);
    if (socket.get() < 0) continue;
    const int yes = 1, no = 0;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_storage any{};
    socklen_t size = 0;
    if (loopback) {
      std::memcpy(&any, addresses->ai_addr, addresses->ai_addrlen);
      size = addresses->ai_addrlen;
    } else if (family == AF_INET6) {
      ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
      auto* own = reinterpret_cast<sockaddr_in6*>(&any);
      own->sin6_family = AF_INET6;
      own->sin6_addr = in6addr_any;
      own->sin6_port = htons(static_cast<uint16_t>(port));
      size = sizeof(sockaddr_in6);
    } else {
      auto* own = reinterpret_cast<sockaddr_in*>(&any);
      own->sin_family = AF_INET;
      own->sin_addr.s_addr = htonl(INADDR_ANY);
      own->sin_port = htons(static_cast<uint16_t>(port));
      size = sizeof(sockaddr_in);
    }
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&any), size) == 0) {
      // Whoever else wants the port must hear of it now; the store's server calls listen once more.
      if (::listen(socket.get(), SOMAXCONN) == 0) return socket.release();
    }
    if (errno == EADDRINUSE) {
      fail<DistributedError>("rank 0 can't listen at ", place(host, port),
                             ": the port is in use. Give another with --master-port or MASTER_PORT");
    }
  }
  fail<DistributedError>("rank 0 can't listen at ", place(host, port), ": ", std::strerror(errno));
}

void wait_for_listener(const std::string& host, int64_t port, std::chrono::milliseconds limit) {
  const auto start = Clock::now();
  bool told = false;
  for (;;) {
    const Addresses addresses = resolve(host, port, SOCK_STREAM);
    const int code = connect_once(addresses.get(), std::chrono::milliseconds(2000));
    if (code == 0) return;
    const auto waited = Clock::now() - start;
    if (waited >= limit) {
      fail<DistributedError>("no answer from rank 0 at ", place(host, port), " within ",
                             std::chrono::duration<double>(limit).count(), " s: ", std::strerror(code));
    }
    if (!told && waited > kFirstWord) log_info("waiting for rank 0 at ", place(host, port));
    told = told || waited > kFirstWord;
    std::this_thread::sleep_for(kRetry);
  }
}

std::string own_address_towards(const std::string& host, int64_t port) {
  const Addresses addresses = resolve(host, port, SOCK_DGRAM);
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    const Socket socket(a->ai_family, SOCK_DGRAM);
    if (socket.get() < 0 || ::connect(socket.get(), a->ai_addr, a->ai_addrlen) != 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    char text[INET6_ADDRSTRLEN] = "";
    if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0) continue;
    const void* bytes = own.ss_family == AF_INET
                            ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(&own)->sin_addr)
                            : static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(&own)->sin6_addr);
    if (::inet_ntop(own.ss_family, bytes, text, sizeof text) != nullptr) return text;
  }
  fail<DistributedError>("there is no way to rank 0's machine, ", place(host, port), ": ", std::strerror(errno));
}

}  // namespace mdm
