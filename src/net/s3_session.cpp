#include "net/s3_session.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "net/policy.h"
#include "net/s3_xml.h"

namespace mdm::net {
namespace {

constexpr size_t kShortestSecret = 8;

bool only_of(std::string_view text, const char* letters) {
  return text.find_first_not_of(letters) == std::string_view::npos;
}

constexpr char kLowerAndDigits[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

// It becomes part of a host's name.
bool is_region(std::string_view text) {
  return !text.empty() && text.size() <= 40 && only_of(text, kLowerAndDigits) && text[0] != '-';
}

// A bucket whose name may be one part of a host's name (with dots the certificate would not fit).
bool is_host_label(const std::string& bucket) {
  return bucket.size() >= 3 && bucket.size() <= 63 && only_of(bucket, kLowerAndDigits) && bucket.front() != '-' &&
         bucket.back() != '-';
}

// It becomes part of a header line. Its value is not shown.
void check_header_text(const std::string& text, const char* what) {
  if (!std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; })) {
    fail<ConfigError>("S3: the ", what, " holds a space or a character that is not ASCII");
  }
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// The path and the query of a URL that a server has spelled.
std::string path_of(const std::string& url) {
  const size_t host = url.find("://") + 3, begin = std::min(url.find_first_of("/?", host), url.size());
  const std::string path = url.substr(begin, url.find('?', begin) - begin);
  return path.empty() ? "/" : path;
}

// Seconds since 1970 of "2024-05-01T12:00:00Z"; false for anything else.
bool parse_time(const std::string& text, std::time_t& time) {
  std::tm parts{};
  if (text.size() < 20 || text.size() > 40 ||
      std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d", &parts.tm_year, &parts.tm_mon, &parts.tm_mday,
                  &parts.tm_hour, &parts.tm_min, &parts.tm_sec) != 6) {
    return false;
  }
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  time = ::timegm(&parts);
  return true;
}

std::string skew_text(const S3Problem& problem) {
  std::time_t server = 0;
  if (!parse_time(problem.server_time, server)) return "; set this machine's clock";
  const double minutes = std::difftime(std::time(nullptr), server) / 60;
  return concat("; this machine's clock is ", std::lround(std::abs(minutes)), " minutes ",
                minutes > 0 ? "ahead of" : "behind", " the server's: set it");
}

}  // namespace

S3Session::S3Session(std::shared_ptr<const S3Options> options) : options_(std::move(options)) {
  if (options_->access_key_id.empty() != options_->secret_access_key.empty()) {
    fail<ConfigError>("S3: an access key id and a secret access key go together");
  }
  check_header_text(options_->access_key_id, "access key id");
  check_header_text(options_->session_token, "session token");
  if (!options_->region.empty() && !is_region(options_->region)) {
    fail<ConfigError>("S3: '", printable(options_->region), "' is no region");
  }
  const std::string& endpoint = options_->endpoint;
  if (endpoint.empty()) return;
  std::string url;
  try {
    url = checked_url(endpoint);
  } catch (const NetError& error) {
    fail<ConfigError>("S3 endpoint: ", error.what(), " (http://HOST:PORT or https://HOST is)");
  }
  if (endpoint.find_first_of("?#") != std::string::npos) {
    fail<ConfigError>("S3 endpoint: ", shown_url(endpoint), ": has a query or fragment");
  }
  const size_t host = url.find("://") + 3, path = std::min(url.find('/', host), url.size());
  scheme_ = url.substr(0, host - 3);
  authority_ = lower(url.substr(host, path - host));
  const std::string usual = scheme_ == "https" ? ":443" : ":80";  // libcurl leaves it out of the header Host
  if (authority_.size() > usual.size() &&
      authority_.compare(authority_.size() - usual.size(), usual.size(), usual) == 0)
    authority_.resize(authority_.size() - usual.size());
  prefix_ = url.substr(path);
  while (!prefix_.empty() && prefix_.back() == '/') prefix_.pop_back();
}

S3Session::Host S3Session::host_of(const std::string& bucket) const {
  Host host;
  const auto known = regions_.find(bucket);
  host.region = known != regions_.end() ? known->second : !options_->region.empty() ? options_->region : "us-east-1";
  host.configured = !authority_.empty();
  host.scheme = host.configured ? scheme_ : "https";
  host.authority = host.configured ? authority_ : concat("s3.", host.region, ".amazonaws.com");
  if (!host.configured && host.region.compare(0, 3, "cn-") == 0) host.authority += ".cn";
  host.prefix = prefix_;
  const bool by_path = options_->path_style.value_or(host.configured) || !is_host_label(bucket);
  if (by_path) {
    host.prefix += '/' + uri_encoded(bucket, false);
  } else {
    host.authority.insert(0, bucket + '.');
  }
  return host;
}

void S3Session::sign(Request& request, const Host& host, const std::string& path, const NameValues& query,
                     const HttpOptions& options) const {
  SigningInput input;
  input.path = path;
  input.query = query;
  input.time = amz_time(std::time(nullptr));
  input.body_sha256 = kEmptyBodySha256;
  input.region = host.region;
  for (const auto& [name, value] : options.headers) {
    if (lower(name).compare(0, 6, "x-amz-") == 0) {
      input.headers.emplace_back(name, value);
    } else if (lower(name) != "authorization" && lower(name) != "host") {
      request.headers.push_back(name + ": " + value);
    }
  }
  if (options_->signs()) {
    input.headers.emplace_back("x-amz-content-sha256", input.body_sha256);
    input.headers.emplace_back("x-amz-date", input.time);
    if (!options_->session_token.empty()) input.headers.emplace_back("x-amz-security-token", options_->session_token);
  }
  for (const auto& [name, value] : input.headers) request.headers.push_back(name + ": " + value);
  if (!options_->signs()) return;
  input.headers.emplace_back("host", host.authority);
  request.headers.push_back("Authorization: " +
                            authorization(input, options_->access_key_id, options_->secret_access_key));
}

void S3Session::address(Request& request, const Host& host, const S3Target& target) const {
  std::string path = host.prefix;
  if (!target.place.key.empty()) path += '/' + uri_encoded(target.place.key, true);
  if (path.empty()) path = "/";
  const std::string query = canonical_query(target.query);
  request.url = concat(host.scheme, "://", host.authority, path, query.empty() ? "" : "?", query);
}

// Whether the answer says that the bucket is in another region of Amazon's, or what else a signature has to name.
bool S3Session::moves(const Answer& answer, const Host& host, const std::string& bucket) {
  if (answer.status != 301 && answer.status != 307 && answer.status != 400) return false;
  const std::string region = !answer.region.empty() ? answer.region : parse_s3_problem(answer.refusal).region;
  if (!is_region(region) || region == host.region) return false;
  regions_[bucket] = region;
  return true;
}

Answer S3Session::follow(Transfer& transfer, const Request& request, const S3Target& target,
                         const HttpOptions& options) {
  Host host = host_of(target.place.bucket);
  Request first = request;
  first.path_as_is = first.keep_refusal = true;
  first.may_be_private = host.configured;
  Request current = first;
  address(current, host, target);
  sign(current, host, path_of(current.url), target.query, options);
  bool moved = false;
  try {
    for (int64_t hop = 0;; ++hop) {
      Answer answer = transfer.run(current, options);
      if (!moved && moves(answer, host, target.place.bucket)) {
        moved = true;
        host = host_of(target.place.bucket);
        current = first;
        address(current, host, target);
        sign(current, host, path_of(current.url), target.query, options);
        continue;
      }
      if (!is_redirect(answer)) return answer;
      if (hop == options.max_redirects) {
        throw NetError(NetError::Kind::kRedirect,
                       concat(shown_url(current.url), ": more than ", options.max_redirects, " redirects"));
      }
      if (hidden(answer.location) != answer.location) {
        throw NetError(NetError::Kind::kRedirect,
                       concat(shown_url(current.url), ": redirects to a URL with the session token in it"));
      }
      // Wherever it leads: what was signed is not for there.
      const std::string next = redirected(current.url, answer.location);
      const bool same = same_origin(current.url, next);
      const bool may_be_private = same && current.may_be_private;
      current = first;
      current.url = next;
      current.may_be_private = may_be_private;
    }
  } catch (const NetError& error) {
    throw NetError(error.kind(), hidden(error.what()), error.status());
  }
}

NetError S3Session::refusal(const Answer& answer, const std::string& shown) const {
  const S3Problem problem = parse_s3_problem(answer.refusal);
  std::string text = concat(shown, ": the server answers ", answer.status);
  if (!problem.code.empty()) text += concat(": ", printable(problem.code, 100));
  if (!problem.message.empty()) text += concat(": ", printable(hidden(problem.message), 300));
  if (problem.code == "RequestTimeTooSkewed") text += skew_text(problem);
  if (answer.status == 403 && !options_->signs()) {
    text += options_->anonymous ? "; nothing was signed, as asked"
                                : "; no credentials were found (AWS_ACCESS_KEY_ID, ~/.aws/credentials)";
  }
  if (problem.code == "ExpiredToken" || problem.code == "ExpiredTokenException") text += "; get new credentials";
  // A 400 that only says that the server has waited too long.
  const auto kind = problem.code == "RequestTimeout" ? NetError::Kind::kTimeout : NetError::Kind::kStatus;
  return {kind, hidden(text), answer.status};
}

// A server has seen the token, and could send it back for us to print.
std::string S3Session::hidden(std::string text) const {
  for (const std::string& secret : {options_->secret_access_key, options_->session_token}) {
    if (secret.size() < kShortestSecret) continue;
    for (size_t at = text.find(secret); at != std::string::npos; at = text.find(secret, at)) {
      text.replace(at, secret.size(), "***");
    }
  }
  return text;
}

std::string md5_of(const Answer& answer) {
  std::string hex = answer.etag;
  if (hex.size() != 34 || hex.front() != '"' || hex.back() != '"' || answer.own_keys) return {};
  hex = lower(hex.substr(1, 32));
  return only_of(hex, "0123456789abcdef") ? hex : std::string();
}

}  // namespace mdm::net
