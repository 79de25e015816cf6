#include "net/tiny_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace mdm::net_test {
namespace {

void send_all(int connection, const char* bytes, size_t count) {
  while (count > 0) {
    const ssize_t sent = ::send(connection, bytes, count, MSG_NOSIGNAL);
    if (sent <= 0) return;  // the client has gone
    bytes += sent;
    count -= static_cast<size_t>(sent);
  }
}

ServerRequest parse(const std::string& text) {
  ServerRequest request;
  const size_t first = text.find(' ');
  request.path = text.substr(first + 1, text.find(' ', first + 1) - first - 1);
  for (size_t at = text.find("\r\n") + 2; at < text.size();) {
    const size_t end = text.find("\r\n", at);
    const std::string line = text.substr(at, end - at);
    if (line.empty()) break;
    const size_t colon = line.find(": ");
    std::string name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers[name] = line.substr(colon + 2);
    at = end + 2;
  }
  return request;
}

}  // namespace

TinyServer::TinyServer(Handler handler) : handler_(std::move(handler)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  if (listener_ < 0 || ::bind(listener_, plain, size) != 0 || ::listen(listener_, 16) != 0 ||
      ::getsockname(listener_, plain, &size) != 0) {
    throw std::runtime_error("the test's server can't listen");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

TinyServer::~TinyServer() {
  stop_ = true;
  thread_.join();
  for (auto& worker : workers_) worker.join();
  ::close(listener_);
}

std::string TinyServer::url(const std::string& path) const {
  return "http://127.0.0.1:" + std::to_string(port_) + path;
}

std::vector<ServerRequest> TinyServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void TinyServer::serve() {
  while (!stop_) {
    pollfd ready{listener_, POLLIN, 0};
    if (::poll(&ready, 1, 20) <= 0) continue;
    const int connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) workers_.emplace_back([this, connection] { answer(connection); });
  }
}

void TinyServer::answer(int connection) {
  std::string text;
  char buffer[4096];
  while (text.find("\r\n\r\n") == std::string::npos) {
    pollfd ready{connection, POLLIN, 0};
    if (::poll(&ready, 1, 50) <= 0) {
      if (stop_) break;
      continue;
    }
    const ssize_t got = ::recv(connection, buffer, sizeof buffer, 0);
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  if (text.find("\r\n\r\n") != std::string::npos) {
    const ServerRequest request = parse(text);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    const ServerReply reply = handler_(request);
    const size_t first = reply.pause_ms > 0 ? std::min(reply.first_part, reply.bytes.size()) : reply.bytes.size();
    send_all(connection, reply.bytes.data(), first);
    for (int waited = 0; waited < reply.pause_ms && !stop_; waited += 10) ::usleep(10'000);
    send_all(connection, reply.bytes.data() + first, reply.bytes.size() - first);
  }
  ::shutdown(connection, SHUT_WR);
  ::close(connection);
}

std::string http_answer(const std::string& status, const std::string& body, const std::vector<std::string>& headers) {
  std::string text = "HTTP/1.1 " + status + "\r\nConnection: close\r\n";
  for (const auto& header : headers) text += header + "\r\n";
  return text + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

ServerReply serve_file(const ServerRequest& request, const std::string& body, const std::string& etag) {
  const std::vector<std::string> tag = {"ETag: " + etag, "Accept-Ranges: bytes"};
  const std::string range = request.header("range"), condition = request.header("if-range");
  if (range.empty() || (!condition.empty() && condition != etag)) return {http_answer("200 OK", body, tag), 0, 0};
  const size_t first = std::strtoull(range.c_str() + 6, nullptr, 10);
  const size_t dash = range.find('-');
  size_t last = dash + 1 < range.size() ? std::strtoull(range.c_str() + dash + 1, nullptr, 10) : body.size() - 1;
  if (first >= body.size()) return {http_answer("416 Range Not Satisfiable", "", tag), 0, 0};
  last = std::min(last, body.size() - 1);
  auto headers = tag;
  headers.push_back("Content-Range: bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" +
                    std::to_string(body.size()));
  return {http_answer("206 Partial Content", body.substr(first, last - first + 1), headers), 0, 0};
}

}  // namespace mdm::net_test
