#include "net/sigv4.h"

#include <algorithm>
#include <cctype>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"

namespace mdm::net {
namespace {

constexpr char kAlgorithm[] = "AWS4-HMAC-SHA256";

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

// Without spaces at the ends, and runs of spaces as one.
std::string canonical_value(std::string_view value) {
  std::string out;
  for (const char c : value) {
    const bool space = c == ' ' || c == '\t';
    if (space && (out.empty() || out.back() == ' ')) continue;
    out += space ? ' ' : c;
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

NameValues canonical_headers(const NameValues& headers) {
  NameValues out;
  for (const auto& [name, value] : headers) {
    std::string lower = name;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
    out.emplace_back(std::move(lower), canonical_value(value));
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return out;
}

}  // namespace

std::string uri_encoded(std::string_view text, bool keep_slashes) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (is_unreserved(c) || (c == '/' && keep_slashes)) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

std::string canonical_query(const NameValues& query) {
  NameValues encoded;
  for (const auto& [name, value] : query) encoded.emplace_back(uri_encoded(name, false), uri_encoded(value, false));
  std::sort(encoded.begin(), encoded.end());
  std::string out;
  for (const auto& [name, value] : encoded) out += concat(out.empty() ? "" : "&", name, '=', value);
  return out;
}

std::string amz_time(std::time_t time) {
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &parts)};
}

std::string authorization(const SigningInput& input, const std::string& access_key_id,
                          const std::string& secret_access_key) {
  const std::string day = input.time.substr(0, 8);
  std::string headers, names;
  for (const auto& [name, value] : canonical_headers(input.headers)) {
    headers += concat(name, ':', value, '\n');
    names += concat(names.empty() ? "" : ";", name);
  }
  const std::string request = concat(input.method, '\n', input.path, '\n', canonical_query(input.query), '\n', headers,
                                     '\n', names, '\n', input.body_sha256);
  const std::string scope = concat(day, '/', input.region, '/', input.service, "/aws4_request");
  const std::string text = concat(kAlgorithm, '\n', input.time, '\n', scope, '\n', sha256_hex(request));
  std::string key = hmac_sha256("AWS4" + secret_access_key, day);
  for (const std::string& part : {input.region, input.service, std::string("aws4_request")}) {
    key = hmac_sha256(key, part);
  }
  return concat(kAlgorithm, " Credential=", access_key_id, '/', scope, ", SignedHeaders=", names,
                ", Signature=", to_hex(hmac_sha256(key, text)));
}

}  // namespace mdm::net
