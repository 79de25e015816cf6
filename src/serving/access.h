// Who may ask: hosts that requests may name, pages that may send them, the key, and how often.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "serving/http.h"

namespace mdm::serving {

struct AccessOptions {
  std::string host = "127.0.0.1";          // where the server listens
  std::vector<std::string> allowed_hosts;  // further names that requests may have in their Host header
  std::string key;                         // empty: none is needed
  std::vector<std::string> open_paths;     // what anybody may see: the page, which asks for the key
  double posts_per_minute = 240;           // of one client, in bursts of as many
};

// Whether an address or name means this machine alone.
bool is_loopback(const std::string& host);

// Used by the server's thread alone.
class Access {
 public:
  explicit Access(AccessOptions options);

  // Refuses a request by its head:
  //   421 for a Host that is not ours: another site's name that was made to lead here (DNS rebinding);
  //   403 for a request that another site's page sends;
  //   401 for one without the key, where one is needed;
  //   415 for a POST of something else than JSON: what a form of another site can send without being asked;
  //   429 for too many POSTs, or wrong keys.
  std::optional<HttpResponse> check(const HttpRequest& head);

  bool key_needed() const { return !options_.key.empty(); }
  bool signed_in(const HttpRequest& request) const;
  // The value of Set-Cookie for the right key; nothing for a wrong one.
  std::optional<std::string> sign_in(const std::string& key);
  // The value of Set-Cookie that ends the session.
  std::string sign_out(const HttpRequest& request);
  // By what limits per client are counted.
  static std::string client_of(const HttpRequest& request) { return request.address; }

 private:
  using Clock = std::chrono::steady_clock;
  bool host_is_ours(const std::string& host) const;
  bool may_ask(const std::string& client);
  std::string session_of(const HttpRequest& request) const;

  AccessOptions options_;
  std::vector<std::string> sessions_;  // tokens of cookies, the newest last
  struct Bucket {
    double left = 0;
    Clock::time_point at;
  };
  std::map<std::string, Bucket> buckets_;
};

}  // namespace mdm::serving
