// Requests of S3: addressed, signed, sent again to where the bucket really is, and their refusals explained.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "mdm/net/s3.h"
#include "net/sigv4.h"
#include "net/transfer.h"

namespace mdm::net {

/// What is asked for: an object, or (`query`) a listing of the bucket.
struct S3Target {
  S3Location place;
  NameValues query;
};

class S3Session {
 public:
  /// ConfigError for options that can't be used.
  explicit S3Session(std::shared_ptr<const S3Options> options);

  /// One try of `request` (whose URL is filled in here), signed now. A bucket in another region is asked for there.
  /// Redirects to other origins go without signature, token and the options' headers.
  Answer follow(Transfer& transfer, const Request& request, const S3Target& target, const HttpOptions& options);

  /// What an answer other than 2xx means; `shown` is the URL for errors.
  NetError refusal(const Answer& answer, const std::string& shown) const;

 private:
  // Where a bucket is.
  struct Host {
    std::string scheme, authority;  // "https", "bucket.s3.eu-west-1.amazonaws.com"
    std::string prefix;             // of the path: "", "/bucket"
    std::string region;
    bool configured = false;  // by the user: may be private
  };
  Host host_of(const std::string& bucket) const;
  void address(Request& request, const Host& host, const S3Target& target) const;
  void sign(Request& request, const Host& host, const std::string& path, const NameValues& query,
            const HttpOptions& options) const;
  bool moves(const Answer& answer, const Host& host, const std::string& bucket);
  std::string hidden(std::string text) const;

  std::shared_ptr<const S3Options> options_;
  std::string scheme_, authority_, prefix_;     // of the endpoint; empty: Amazon's
  std::map<std::string, std::string> regions_;  // of buckets, as their servers told
};

/// The MD5 of an object in hexadecimal, where its ETag is one: not of what came in several parts, or is encrypted with
/// keys of its own. Empty: unknown.
std::string md5_of(const Answer& answer);

}  // namespace mdm::net
