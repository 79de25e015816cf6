// Who may ask.
#include "serving/access.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mdm/core/secret.h"
#include "serving/json.h"

namespace mdm::serving {
namespace {

constexpr const char* kCookie = "mdm_session";
constexpr size_t kTokenBytes = 32;
constexpr size_t kMaxSessions = 1000;
constexpr size_t kMaxBuckets = 10000;
constexpr double kSecondsPerMinute = 60;

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return text;
}

// "[::1]:80" -> "::1", "localhost:80" -> "localhost"; "" for anything but a name or address and a port.
std::string name_of(const std::string& host) {
  const bool bracketed = !host.empty() && host.front() == '[';
  const size_t end = bracketed ? host.find(']') : std::min(host.find(':'), host.size());
  if (end == std::string::npos) return "";
  const std::string port = host.substr(end + (bracketed ? 1 : 0));
  const bool is_port = port.empty() || (port.front() == ':' && port.find_first_not_of("0123456789", 1) == port.npos);
  if (!is_port) return "";
  return bracketed ? host.substr(1, end - 1) : host.substr(0, end);
}

bool is_address(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

bool begins_with(const std::string& text, std::string_view start) { return text.compare(0, start.size(), start) == 0; }

HttpResponse refusal(int status, const char* code, const char* message, int retry_after = 0) {
  return error_response({status, code, message, "", retry_after});
}

}  // namespace

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || (is_address(host) && begins_with(host, "127."));
}

Access::Access(AccessOptions options) : options_(std::move(options)) {
  options_.host = lower(options_.host);
  for (std::string& host : options_.allowed_hosts) host = lower(host);
}

bool Access::host_is_ours(const std::string& host) const {
  const std::string name = lower(name_of(host));
  if (is_loopback(name) || name == options_.host) return true;
  // An address can't be made to lead elsewhere; but who listens on the loopback alone is asked by no other.
  if (is_address(name) && !is_loopback(options_.host)) return true;
  return std::find(options_.allowed_hosts.begin(), options_.allowed_hosts.end(), name) != options_.allowed_hosts.end();
}

std::optional<HttpResponse> Access::check(const HttpRequest& head) {
  const std::string host = head.header("host");
  if (host.empty()) return refusal(400, "bad_request", "the request names no host");
  if (!host_is_ours(host)) return refusal(421, "wrong_host", "this server does not answer for that host");

  const bool changes = head.method != "GET" && head.method != "HEAD";
  const std::string origin = lower(head.header("origin"));
  if (!origin.empty()) {
    const size_t scheme = origin.find("://");
    const bool own = scheme != std::string::npos && origin.substr(scheme + 3) == lower(host);
    if (!own) return refusal(403, "forbidden_origin", "pages of other sites may not use this server");
  }
  const std::string site = head.header("sec-fetch-site");
  if (changes && !site.empty() && site != "same-origin" && site != "none") {
    return refusal(403, "forbidden_origin", "pages of other sites may not use this server");
  }
  const auto& open = options_.open_paths;
  const bool is_open = std::find(open.begin(), open.end(), head.path) != open.end();
  const auto slow_down = [&] {
    const int wait = static_cast<int>(std::ceil(kSecondsPerMinute / options_.posts_per_minute));
    return refusal(429, "too_many_requests", "too many requests; wait a moment", wait);
  };
  if (!is_open && key_needed() && !signed_in(head)) {
    if (!head.header("authorization").empty() && !may_ask(client_of(head))) return slow_down();
    HttpResponse response = refusal(401, "unauthorized", "this server wants a key: Authorization: Bearer KEY");
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  if (!changes) return std::nullopt;
  if (head.method == "POST" && !may_ask(client_of(head))) return slow_down();
  const std::string type = lower(head.header("content-type"));
  const std::string media = type.substr(0, std::min(type.find_first_of("; \t"), type.size()));
  const bool empty = head.header("content-length") == "0" || head.method == "DELETE";
  if (!empty && media != "application/json") {
    return refusal(415, "unsupported_type", "bodies must have Content-Type: application/json");
  }
  return std::nullopt;
}

// A bucket of requests that fills again with time.
bool Access::may_ask(const std::string& client) {
  const Clock::time_point now = Clock::now();
  const double most = options_.posts_per_minute;
  if (buckets_.size() >= kMaxBuckets && buckets_.count(client) == 0) {  // the one that was used longest ago goes
    buckets_.erase(std::min_element(buckets_.begin(), buckets_.end(),
                                    [](const auto& a, const auto& b) { return a.second.at < b.second.at; }));
  }
  Bucket& bucket = buckets_.try_emplace(client, Bucket{most, now}).first->second;
  const double passed = std::chrono::duration<double>(now - bucket.at).count();
  bucket = {std::min(most, bucket.left + passed * most / kSecondsPerMinute), now};
  if (bucket.left < 1) return false;
  bucket.left -= 1;
  return true;
}

std::string Access::session_of(const HttpRequest& request) const {
  const std::string cookies = request.header("cookie");
  const std::string start = std::string(kCookie) + "=";
  for (size_t at = 0; at < cookies.size();) {
    const size_t end = std::min(cookies.find(';', at), cookies.size());
    at = cookies.find_first_not_of(' ', at);
    if (at >= end) break;
    const std::string one = cookies.substr(at, end - at);
    if (begins_with(one, start)) return one.substr(start.size());
    at = end + 1;
  }
  return "";
}

bool Access::signed_in(const HttpRequest& request) const {
  if (!key_needed()) return true;
  const std::string authorization = request.header("authorization");
  constexpr std::string_view kBearer = "bearer ";
  if (lower(authorization.substr(0, kBearer.size())) == kBearer) {
    return equal_in_constant_time(options_.key, authorization.substr(kBearer.size()));
  }
  const std::string session = session_of(request);
  if (session.empty()) return false;
  bool found = false;
  for (const std::string& token : sessions_) found = equal_in_constant_time(token, session) || found;
  return found;
}

std::optional<std::string> Access::sign_in(const std::string& key) {
  if (!key_needed() || !equal_in_constant_time(options_.key, key)) return std::nullopt;
  if (sessions_.size() >= kMaxSessions) sessions_.erase(sessions_.begin());
  sessions_.push_back(random_hex(kTokenBytes));
  return std::string(kCookie) + "=" + sessions_.back() + "; Path=/; HttpOnly; SameSite=Strict";
}

std::string Access::sign_out(const HttpRequest& request) {
  const std::string session = session_of(request);
  const auto is_that = [&](const std::string& token) { return equal_in_constant_time(token, session); };
  sessions_.erase(std::remove_if(sessions_.begin(), sessions_.end(), is_that), sessions_.end());
  return std::string(kCookie) + "=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0";
}

}  // namespace mdm::serving
