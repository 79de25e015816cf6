// URLs as text, for what needs no libcurl.
#include <strings.h>

#include "mdm/net/http_client.h"
#include "mdm/net/s3.h"

namespace mdm {

bool is_url(std::string_view text) {
  for (const std::string_view scheme : {"http://", "https://", "s3://"}) {
    if (text.size() >= scheme.size() && ::strncasecmp(text.data(), scheme.data(), scheme.size()) == 0) return true;
  }
  return false;
}

std::optional<std::filesystem::path> file_url_path(std::string_view text) {
  constexpr std::string_view kScheme = "file://", kHost = "localhost";
  if (text.size() < kScheme.size() || ::strncasecmp(text.data(), kScheme.data(), kScheme.size()) != 0) return {};
  text.remove_prefix(kScheme.size());
  if (text.substr(0, kHost.size()) == kHost) text.remove_prefix(kHost.size());
  if (text.empty() || text[0] != '/') return {};
  const std::string path = percent_decoded(text);
  if (path.find('\0') != std::string::npos) return {};
  return path;
}

std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    const size_t at = std::string_view("0123456789abcdef0123456789ABCDEF").find(c);
    return at == std::string_view::npos ? -1 : static_cast<int>(at % 16);
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool coded = text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    out += coded ? static_cast<char>(digit(text[i + 1]) << 4 | digit(text[i + 2])) : text[i];
    if (coded) i += 2;
  }
  return out;
}

std::string shown_url(std::string_view url) {
  if (is_s3_url(url)) return printable(url, 500);
  std::string_view rest = url.substr(0, url.find_first_of("?#"));
  const size_t scheme = rest.find("://");
  std::string shown;
  if (scheme != std::string_view::npos) {
    shown = rest.substr(0, scheme + 3);
    rest.remove_prefix(scheme + 3);
    const size_t host_end = std::min(rest.find('/'), rest.size());
    const size_t user_end = rest.substr(0, host_end).rfind('@');
    if (user_end != std::string_view::npos) rest.remove_prefix(user_end + 1);
  }
  shown += rest;
  return printable(shown, 500);
}

}  // namespace mdm
