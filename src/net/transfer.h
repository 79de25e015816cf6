// One request with libcurl: the private seam. What http_client.cpp makes retries and files of.
#pragma once

#include <curl/curl.h>

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/net/http_client.h"

namespace mdm::net {

/// What a server said before the body.
struct Answer {
  int status = 0;
  std::string location, etag, last_modified, content_type, content_range;
  std::optional<uint64_t> content_length;
  double retry_after = 0;  // seconds
};

struct Request {
  std::string url;
  std::vector<std::string> headers;  // "Name: value", beside those of the options
  /// Called once before the body of an answer 2xx; what it throws ends the transfer and is thrown on.
  std::function<void(const Answer&)> on_answer;
  std::function<void(const char*, size_t)> on_body;  // only for 2xx
};

/// A libcurl handle that keeps its connections.
class Transfer {
 public:
  explicit Transfer(const HttpOptions& options);
  /// One try, without redirects. Throws NetError, and what the request's functions throw. Answers other than 2xx
  /// are returned like the others.
  Answer run(const Request& request, const HttpOptions& options);

 private:
  std::unique_ptr<CURL, void (*)(CURL*)> handle_;
};

/// The URL in libcurl's spelling. NetError unless http or https with a host, and without user name and password.
std::string checked_url(const std::string& url);
/// Where a redirect leads: `location` resolved against `url`, and checked.
std::string redirected(const std::string& url, const std::string& location);
/// Whether both have the same scheme, host and port.
bool same_origin(const std::string& a, const std::string& b);

}  // namespace mdm::net
