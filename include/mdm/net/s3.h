// S3 and what speaks its protocol (MinIO, Ceph, ...): how HttpClient takes `s3://bucket/key`.
// A key is what follows the bucket and its '/', byte by byte: nothing in it is decoded, and `?`, `#` and `%` mean
// themselves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mdm {

/// Where objects are asked for, and as whom. The secret and the session token are never logged, never in an error, and
/// only sent (the token; of the secret only signatures) to the endpoint itself.
struct S3Options {
  /// "http(s)://HOST[:PORT][/PATH]"; it may lie on a private address. Empty: Amazon's.
  std::string endpoint;
  std::string region;  ///< empty: us-east-1; Amazon's servers tell where a bucket really is, and that is heeded
  std::string access_key_id, secret_access_key;  ///< both empty: anonymous
  std::string session_token;                     ///< of temporary credentials; empty: none
  bool anonymous = false;                        ///< nothing is signed even if there are credentials
  /// The bucket as the path's first part instead of the host's. Unset: with an endpoint of one's own, and for buckets
  /// whose name is not a plain part of a host's name.
  std::optional<bool> path_style;

  /// As other programs find them: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
  /// AWS_SESSION_TOKEN, AWS_REGION, AWS_DEFAULT_REGION, then the files ~/.aws/credentials and ~/.aws/config
  /// (AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE) with the profile of AWS_PROFILE, else "default". Without
  /// credentials: anonymous. `endpoint` and `profile` come first where they are not empty; a profile that is named here
  /// is asked for credentials before the environment is. `anonymous`: none are looked for.
  /// ConfigError for a profile that is not there, one that needs
  /// what is not supported (roles, SSO, helper programs), files that can't be read, half of a pair of keys, and an
  /// endpoint that is no URL.
  static S3Options from_environment(const std::string& endpoint = {}, const std::string& profile = {},
                                    bool anonymous = false);

  bool signs() const { return !anonymous && !access_key_id.empty(); }
};

struct S3Location {
  std::string bucket;
  std::string key;  ///< may be empty
};

/// The parts of "s3://BUCKET" or "s3://BUCKET/KEY"; NetError (kUrl) for anything else.
S3Location parse_s3_url(std::string_view url);

/// Whether `text` begins with s3://, in any case.
bool is_s3_url(std::string_view text);

/// An object as a listing tells of it.
struct S3Object {
  std::string key;
  uint64_t bytes = 0;
  std::string etag;  ///< as sent, quotes included; empty: none
};

}  // namespace mdm
