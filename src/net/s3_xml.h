// What S3 answers, in XML. Anyone may have written it: limits on size and parts, and no entities of its own.
#pragma once

#include <string>
#include <vector>

#include "mdm/net/s3.h"

namespace mdm::net {

/// Parts of an <Error>; all empty for what is none. Never throws: it only explains what went wrong already.
struct S3Problem {
  std::string code, message;
  std::string region;       ///< where the bucket is, or what the signature should have named
  std::string server_time;  ///< of RequestTimeTooSkewed
};
S3Problem parse_s3_problem(const std::string& xml);

/// A page of ListObjectsV2. `next`: token of the page that follows; empty: this is the last.
struct S3Page {
  std::vector<S3Object> objects;
  std::string next;
};

inline constexpr size_t kMostPageBytes = size_t{8} << 20;  ///< 1000 keys of 1024 bytes, encoded, are half of this

/// NetError (kProtocol) for what is no such page; `shown` is what errors call it.
S3Page parse_s3_page(const std::string& xml, const std::string& shown);

}  // namespace mdm::net
