// A server for HTTP/1.1 on Boost.Beast, which no other file includes. It holds clients to limits of size, time and
// number before anything of a request is looked at, and answers on one thread: handlers must be quick, and answer later
// what takes long.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "serving/http.h"

namespace mdm::serving {

struct HttpLimits {
  // Beyond, the client that lets us wait for longest is cut off; when none does, the newcomer is refused. Three
  // quarters of them may be streams.
  size_t connections = 64;
  size_t header_bytes = size_t{16} << 10;
  size_t header_lines = 100;
  size_t body_bytes = size_t{64} << 10;
  std::chrono::milliseconds header_time{5000};  // for all of a request's head
  std::chrono::milliseconds body_time{10000};   // for all of its body
  std::chrono::milliseconds idle_time{30000};   // until the next request of a connection has come
  std::chrono::milliseconds write_time{30000};  // for an answer, or a part of a stream
  std::chrono::milliseconds keep_alive{15000};  // between two signs of life of a stream
};

struct HttpHooks {
  // Looks at a request's head; an answer refuses it, and its body is not read.
  std::function<std::optional<HttpResponse>(const HttpRequest&)> check;
  std::function<void(std::shared_ptr<Exchange>)> handle;
  // Told of every answer, with the request when there was one (null: what came was none).
  std::function<void(const HttpRequest*, int status)> answered;
  // Put into every answer.
  std::vector<std::pair<std::string, std::string>> headers;
};

class HttpServer {
 public:
  // Listens; `port` 0: at any free one. Error when host or port can't be had.
  HttpServer(const std::string& host, uint16_t port, HttpHooks hooks, const HttpLimits& limits = {});
  ~HttpServer();  // stop()

  // Answers from now on.
  void start();

  uint16_t port() const;
  size_t connections() const;
  // Takes no more connections and requests, lets running answers and streams end for `grace`, cuts off the rest, and
  // frees the port.
  void stop(std::chrono::milliseconds grace = std::chrono::milliseconds(0));

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mdm::serving
