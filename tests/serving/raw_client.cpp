#include "serving/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace mdm::serving_test {
namespace {

using Clock = std::chrono::steady_clock;

int milliseconds_until(Clock::time_point end) {
  return static_cast<int>(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count()));
}

Clock::time_point in(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

RawClient::RawClient(uint16_t port) : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) close();
}

RawClient::RawClient(RawClient&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), received_(std::move(other.received_)) {}

RawClient::~RawClient() { close(); }

void RawClient::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

void RawClient::shutdown_sending() { ::shutdown(descriptor_, SHUT_WR); }

bool RawClient::send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = ::send(descriptor_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return false;
    sent += static_cast<size_t>(count);
  }
  return true;
}

std::string RawClient::receive(double seconds, size_t most) {
  const auto end = in(seconds);
  std::string all = std::move(received_);
  received_.clear();
  while (all.size() < most) {
    pollfd wait{descriptor_, POLLIN, 0};
    if (::poll(&wait, 1, milliseconds_until(end)) <= 0) break;
    char bytes[65536];
    const ssize_t count = ::recv(descriptor_, bytes, sizeof(bytes), 0);
    if (count <= 0) break;
    all.append(bytes, static_cast<size_t>(count));
  }
  return all;
}

std::string RawClient::receive_until(const std::string& mark, double seconds) {
  const auto end = in(seconds);
  while (true) {
    const size_t at = received_.find(mark);
    if (at != std::string::npos) {
      const std::string part = received_.substr(0, at + mark.size());
      received_.erase(0, part.size());
      return part;
    }
    pollfd wait{descriptor_, POLLIN, 0};
    if (::poll(&wait, 1, milliseconds_until(end)) <= 0) return "";
    char bytes[65536];
    const ssize_t count = ::recv(descriptor_, bytes, sizeof(bytes), 0);
    if (count <= 0) return "";
    received_.append(bytes, static_cast<size_t>(count));
  }
}

bool RawClient::closed_within(double seconds) {
  const auto end = in(seconds);
  while (true) {
    pollfd wait{descriptor_, POLLIN, 0};
    if (::poll(&wait, 1, milliseconds_until(end)) <= 0) return false;
    char bytes[65536];
    if (::recv(descriptor_, bytes, sizeof(bytes), 0) <= 0) return true;
  }
}

Answer parse_answer(const std::string& bytes) {
  Answer answer;
  const size_t head_end = bytes.find("\r\n\r\n");
  if (bytes.compare(0, 7, "HTTP/1.") != 0 || head_end == std::string::npos) return answer;
  answer.status = std::atoi(bytes.c_str() + 9);
  for (size_t at = bytes.find("\r\n") + 2; at < head_end;) {
    const size_t end = bytes.find("\r\n", at);
    const size_t colon = bytes.find(':', at);
    std::string name = bytes.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    answer.headers[name] = bytes.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  answer.body = bytes.substr(head_end + 4);
  return answer;
}

Answer request(uint16_t port, const std::string& method, const std::string& path, const std::string& body,
               const std::vector<std::string>& headers, double seconds) {
  RawClient client(port);
  if (!client.connected()) return {};
  std::string text = method + " " + path + " HTTP/1.1\r\nConnection: close\r\n";
  const auto given = [&](const std::string& name) {
    return std::any_of(headers.begin(), headers.end(),
                       [&](const auto& line) { return line.compare(0, name.size(), name) == 0; });
  };
  if (!given("Host:")) text += "Host: 127.0.0.1:" + std::to_string(port) + "\r\n";
  if (method == "POST" || !body.empty()) {
    if (!given("Content-Type:")) text += "Content-Type: application/json\r\n";
    text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  for (const std::string& line : headers) text += line + "\r\n";
  client.send(text + "\r\n" + body);
  return parse_answer(client.receive(seconds, size_t{64} << 20));
}

}  // namespace mdm::serving_test
