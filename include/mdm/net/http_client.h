// HTTP for data: GET into memory or into a file, with limits on everything that a server decides.
// libcurl stays behind this header; in a build without it every call throws NetError that says so.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mdm/core/error.h"

namespace mdm {

struct S3Object;
struct S3Options;

/// A transfer that failed for good, after retries where they could help.
class NetError : public Error {
 public:
  enum class Kind {
    kUrl,         ///< not an http, https or s3 URL, or one with a password in it
    kRefused,     ///< the address is a private one
    kRedirect,    ///< too many redirects, or one to what is no http or https URL
    kHost,        ///< no such host, or names can't be resolved
    kConnection,  ///< no connection, broken off
    kTls,         ///< the certificate or the handshake
    kTimeout,     ///< connecting, the whole transfer, or too slow
    kStatus,      ///< an answer other than 2xx; see status()
    kSize,        ///< more bytes than allowed, or other than announced
    kChecksum,    ///< other bytes than the object's ETag says
    kProtocol,    ///< an answer 2xx whose content is not what was asked for
    kCancelled,
    kUnavailable,  ///< libmdm was built without libcurl
  };
  NetError(Kind kind, const std::string& text, int status = 0) : Error(text), kind_(kind), status_(status) {}
  Kind kind() const { return kind_; }
  int status() const { return status_; }  ///< of the answer, 0 without one

 private:
  Kind kind_;
  int status_;
};

struct HttpOptions {
  double connect_seconds = 15;
  double total_seconds = 3600;  ///< of one try
  /// A transfer slower than this over stall_seconds is broken off (and tried again).
  int64_t least_bytes_per_second = 64;
  double stall_seconds = 30;
  int64_t max_redirects = 5;
  int64_t max_bytes = int64_t{64} << 30;  ///< of a body
  int64_t tries = 4;                      ///< for what may pass: 408, 429, 5xx, time-outs, broken connections
  double first_wait_seconds = 0.5;        ///< before the second try; doubled each time, Retry-After is heeded up to 60
  /// Also connects to loopback, private, link-local and other addresses that are not public. Off: the address
  /// that is really connected to is looked at, for redirects too, whatever a name resolves to.
  bool allow_private = false;
  bool use_proxy = false;  ///< take the proxy that http_proxy and https_proxy name
  /// "HOST:PORT:ADDRESS": instead of what names resolve to. Addresses are judged as others are.
  std::vector<std::string> resolve;
  std::string ca_file;     ///< certificates in place of the system's; empty: the system's
  std::string user_agent;  ///< empty: libmdm/VERSION
  std::vector<std::pair<std::string, std::string>> headers;  ///< sent with every request to the first host
  /// For s3:// URLs (mdm/net/s3.h). Null: from the environment, when the first one is met, with `s3_endpoint` in place
  /// of the environment's where it is not empty.
  std::shared_ptr<const S3Options> s3;
  std::string s3_endpoint;
  std::function<void(uint64_t bytes)> on_bytes;  ///< told of bodies as they come; by the thread that calls the client
  /// Of download(): how many bytes are there, of how many where the server says. What it throws ends the transfer.
  std::function<void(uint64_t done, std::optional<uint64_t> total)> progress;
  const std::atomic<bool>* cancel = nullptr;  ///< looked at several times a second
};

struct HttpRange {
  uint64_t first = 0;
  uint64_t count = 0;  ///< > 0
};

struct HttpResponse {
  int status = 0;    ///< 200 or 206
  std::string url;   ///< the last one, after redirects; of s3:// the one asked for
  std::string etag;  ///< as sent, quotes included; empty: none
  std::string last_modified;
  std::string content_type;
  std::vector<std::string> robots;      ///< values of X-Robots-Tag
  std::optional<uint64_t> total_bytes;  ///< of the whole resource, where the server says
  std::string md5;                      ///< of an s3:// object where its ETag is one, in hexadecimal; else empty
  std::string body;                     ///< of get(); empty for download()
};

/// Takes http://, https:// and s3:// URLs. What comes from S3 is compared with the object's ETag where that is an MD5.
/// Thread-compatible: one object for one thread at a time; connections are kept between calls.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options = {});
  ~HttpClient();
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;

  /// The body in memory. With `range` the server must answer with exactly that part (206); one that ignores
  /// ranges is an error of kind kStatus. NetError.
  HttpResponse get(const std::string& url, const std::optional<HttpRange>& range = std::nullopt);

  /// The body as a file that is complete or absent. A transfer that breaks off leaves `target`.part and a note
  /// of what it is a part of beside it; the next try, of this or a later call, goes on from there when the
  /// resource is still the same (Range with If-Range; servers that send an ETag or a date), and begins anew
  /// otherwise. NetError; Error when the file can't be written.
  HttpResponse download(const std::string& url, const std::filesystem::path& target);

  /// All objects whose keys begin with that of `url` ("s3://bucket/prefix"), in the order of the server, page by page.
  /// `visit` may return false to end. NetError.
  void list(const std::string& url, const std::function<bool(const S3Object&)>& visit);

  const HttpOptions& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Whether `text` begins with http://, https:// or s3://, in any case.
bool is_url(std::string_view text);

/// %XX as the byte it stands for; what is no such code stays.
std::string percent_decoded(std::string_view text);

/// The path that a file:// URL of this machine names; nothing for what is none.
std::optional<std::filesystem::path> file_url_path(std::string_view text);

/// A URL for logs and errors: without user name, password, query and fragment, escaped. (Keys of s3:// have none of
/// these.)
std::string shown_url(std::string_view url);

}  // namespace mdm
