// An HTTP server on the loopback for tests: it answers what a test says, byte for byte.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mdm::net_test {

struct ServerRequest {
  std::string path;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string header(const std::string& name) const {
    const auto at = headers.find(name);
    return at == headers.end() ? "" : at->second;
  }
};

/// What goes over the wire: `bytes`, after which the connection is closed. `pause_ms` lies between the
/// first `first_part` bytes and the rest.
struct ServerReply {
  std::string bytes;
  size_t first_part = 0;
  int pause_ms = 0;
};

class TinyServer {
 public:
  using Handler = std::function<ServerReply(const ServerRequest&)>;
  explicit TinyServer(Handler handler);
  ~TinyServer();

  std::string url(const std::string& path) const;  // http://127.0.0.1:PORT/path
  int port() const { return port_; }
  std::vector<ServerRequest> requests() const;

 private:
  void serve();
  void answer(int connection);

  Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<ServerRequest> requests_;
  std::vector<std::thread> workers_;
  std::thread thread_;
};

/// A whole answer: status line, headers (each "Name: value"), Content-Length, body.
std::string http_answer(const std::string& status, const std::string& body,
                        const std::vector<std::string>& headers = {});

/// Answers as a file server does: ETag, ranges, If-Range, 416.
ServerReply serve_file(const ServerRequest& request, const std::string& body, const std::string& etag);

}  // namespace mdm::net_test
