// AWS Signature Version 4: the Authorization header of a request, from nothing but its arguments. (libcurl's own
// signing goes wrong for keys with '=', ':' or '*' and for some queries.)
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mdm::net {

using NameValues = std::vector<std::pair<std::string, std::string>>;

/// What is signed. Nothing is normalised: what stands here must be what is sent.
struct SigningInput {
  std::string method = "GET";
  std::string path;         ///< as sent: percent-encoded, "/" at least
  NameValues query;         ///< not encoded; sent as canonical_query() spells it
  NameValues headers;       ///< all that are signed, with host and x-amz-date; names in any case
  std::string time;         ///< amz_time(), the value of x-amz-date
  std::string body_sha256;  ///< in hexadecimal
  std::string region;
  std::string service = "s3";
};

/// "AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...".
std::string authorization(const SigningInput& input, const std::string& access_key_id,
                          const std::string& secret_access_key);

/// Every byte but letters, digits, '-', '.', '_', '~' (and '/', where `keep_slashes`) as %XX.
std::string uri_encoded(std::string_view text, bool keep_slashes);

/// "a=1&b=2" with both parts encoded, in the order of the encoded names, then values; "a=" for an empty value.
std::string canonical_query(const NameValues& query);

/// "20130524T000000Z".
std::string amz_time(std::time_t time);

/// The SHA-256 of no bytes, in hexadecimal: the body of a GET.
inline constexpr char kEmptyBodySha256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

}  // namespace mdm::net
