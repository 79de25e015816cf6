// Many GETs at a time, on one thread: libcurl's multi interface, with limits per host and of memory.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/net/http_client.h"

namespace mdm {

struct HttpPoolOptions {
  HttpOptions http;                ///< of each request: limits, tries, waits between them, certificates, addresses
  int64_t transfers = 256;         ///< at a time
  int64_t transfers_per_host = 8;  ///< at a time from one host and port
  /// Bytes of bodies that are on their way, together; more rest at their servers until others are done. One body may
  /// pass it, up to HttpOptions::max_bytes.
  uint64_t most_body_bytes = uint64_t{64} << 20;
  /// Looks at an answer 2xx before its body is loaded; what it throws ends the request, and becomes its error.
  std::function<void(const HttpResponse&)> on_answer;
};

/// Requests wait in line by host; who is to be tried again, after an error that may pass, takes no place while it
/// waits, and a host that asks for patience (429 or 503 with Retry-After, heeded up to 60 s) is left alone by all.
/// Redirects are followed by the rules of HttpClient, and their addresses looked at likewise.
///
/// Thread-compatible but for wake(). In a build without libcurl the constructor throws NetError.
class HttpPool {
 public:
  explicit HttpPool(HttpPoolOptions options);
  /// Breaks off what is on its way.
  ~HttpPool();
  HttpPool(const HttpPool&) = delete;
  HttpPool& operator=(const HttpPool&) = delete;

  struct Finished {
    uint64_t id = 0;
    HttpResponse response;     ///< with the body, when there is no error
    std::exception_ptr error;  ///< a NetError, or what on_answer threw
    int64_t tries = 0;
  };

  /// A URL that can't be asked for is reported by wait() like other failures.
  void add(uint64_t id, const std::string& url);
  /// Requests that wait() has not given back yet.
  size_t unfinished() const;
  /// Works until a request is done, `seconds` are over, or wake() is called; gives back what is done.
  std::vector<Finished> wait(double seconds);
  /// Ends a wait() early; may be called by other threads.
  void wake();
  /// While held, no request takes a place; those that have one go on. For who can't take more bodies just now.
  void hold(bool held);
  /// Bytes of bodies that have come in so far.
  uint64_t bytes_received() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
