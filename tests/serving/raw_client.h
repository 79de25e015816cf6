// A client that can send anything: bytes over a TCP connection to the loopback address, and what comes back.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace mdm::serving_test {

class RawClient {
 public:
  explicit RawClient(uint16_t port);
  ~RawClient();
  RawClient(RawClient&& other) noexcept;
  RawClient(const RawClient&) = delete;

  bool connected() const { return descriptor_ >= 0; }
  bool send(const std::string& bytes);                                 // false: the other side has closed
  std::string receive(double seconds, size_t most = size_t{1} << 20);  // what comes until then, the end, or `most`
  // Until `end` has come, all that was received before included; "" in time means it did not.
  std::string receive_until(const std::string& end, double seconds);
  bool closed_within(double seconds);  // reads on until the other side closes
  void shutdown_sending();
  void close();

 private:
  int descriptor_ = -1;
  std::string received_;
};

struct Answer {
  int status = 0;                              // 0: the connection was closed without one
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// One request over a connection of its own. `headers`: lines without line ends. A Host, and for a body its length and
// type, are added.
Answer request(uint16_t port, const std::string& method, const std::string& path, const std::string& body = "",
               const std::vector<std::string>& headers = {}, double seconds = 30);

// An answer out of bytes.
Answer parse_answer(const std::string& bytes);

}  // namespace mdm::serving_test
