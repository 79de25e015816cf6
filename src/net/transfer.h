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
  std::vector<std::string> robots;  // values of X-Robots-Tag, a line each
  std::string region;               // x-amz-bucket-region: where an S3 bucket really is
  bool own_keys = false;            // encrypted by S3 with keys that make an ETag no MD5
  std::string refusal;              // the begin of another body than of 2xx, when asked for
  double retry_after = 0;           // seconds
};

struct Request {
  std::string url;
  std::vector<std::string> headers;  // "Name: value", beside those of the options
  bool may_be_private = false;       // the user names this very server: its address may be any
  bool path_as_is = false;           // with its "." and ".." parts
  bool keep_refusal = false;         // see Answer::refusal
  /// Called once before the body of an answer 2xx; what it throws ends the transfer and is thrown on.
  std::function<void(const Answer&)> on_answer;
  /// Only for 2xx. False: not now; the transfer rests until curl_easy_pause() (of transfers in a curl_multi).
  std::function<bool(const char*, size_t)> on_body;
};

struct TransferState;

/// One try at a time, without redirects, on a libcurl handle that keeps its connections.
class Transfer {
 public:
  Transfer();
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  /// begin(), curl_easy_perform(), end().
  Answer run(const Request& request, const HttpOptions& options);

  /// Sets the handle up, for curl_multi_add_handle(). Both arguments must live until end().
  void begin(const Request& request, const HttpOptions& options);
  CURL* handle() { return handle_.get(); }
  /// What came of it; `code` is libcurl's. Throws NetError, and what the request's functions throw. Answers other than
  /// 2xx are returned like the others.
  Answer end(CURLcode code);

 private:
  std::unique_ptr<CURL, void (*)(CURL*)> handle_;
  std::unique_ptr<TransferState> state_;
};

/// The URL in libcurl's spelling. NetError unless http or https with a host, and without user name and password.
std::string checked_url(const std::string& url);
/// Where a redirect leads: `location` resolved against `url`, and checked.
std::string redirected(const std::string& url, const std::string& location);
/// "scheme://host:port" of a checked URL.
std::string origin(const std::string& url);
/// What an answer says, into a response; its URL, body and size stay.
void describe(const Answer& answer, HttpResponse& response);
/// Whether both have the same scheme, host and port.
bool same_origin(const std::string& a, const std::string& b);

}  // namespace mdm::net
