// An HTTP server on the loopback that does everything that servers of the open web do to a scraper, by path:
// /KIND/NUMBER.jpg. One thread, so that it takes little of the cores that it shares with what is tested.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mdm::test_support {

/// What a path's first part asks for, and what a scraper must make of it.
struct FaultKind {
  const char* name;
  bool picture;       ///< in the end there must be a picture
  const char* cause;  ///< else the failure's cause
};

/// All kinds. `slow` ones keep a connection for seconds and are not in lists of faults of more than one in 50.
const std::vector<FaultKind>& fault_kinds();
const FaultKind& fault_kind(const std::string& name);

struct FaultServerOptions {
  int port = 0;  ///< 0: any
  int side = 96;
  int quality = 90;
  int templates = 8;  ///< pictures of other content; each number gets bytes of its own from one of them
};

class FaultServer {
 public:
  explicit FaultServer(const FaultServerOptions& options = {});
  ~FaultServer();
  FaultServer(const FaultServer&) = delete;
  FaultServer& operator=(const FaultServer&) = delete;

  int port() const { return port_; }
  std::string url(const std::string& kind, uint64_t number) const;
  /// Bytes of /good/NUMBER.jpg.
  std::string good_picture(uint64_t number) const;

  /// How often each path was asked for.
  std::map<std::string, int> requests() const;
  uint64_t most_connections() const { return most_connections_; }
  /// Breaks all connections and takes no more, until start_again() on the same port.
  void stop();
  void start_again();

 private:
  struct Reply;
  struct Connection;
  struct Loop;

  void serve();
  Reply reply_to(const std::string& path);

  FaultServerOptions options_;
  std::vector<std::string> templates_;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, int> requests_;
  std::atomic<uint64_t> most_connections_{0};
  std::atomic<bool> end_{false};
  int listener_ = -1;
  std::thread thread_;
};

/// A list in the form of Conceptual 12M (URL, tab, caption) of `count` rows, and what must become of each: kind by kind
/// in turn for `faults`, else only good ones. Row i has number i.
struct FaultList {
  std::string text;
  std::vector<const FaultKind*> rows;
};
FaultList fault_list(const std::string& base_url, uint64_t count, bool faults);

}  // namespace mdm::test_support
