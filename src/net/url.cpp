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
