#include "ingest/robots.h"

#include <strings.h>

namespace mdm::ingest {
namespace {

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

bool takes_value(std::string_view rule) {
  for (const std::string_view name : {"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"}) {
    if (same_word(rule, name)) return true;
  }
  return false;
}

}  // namespace

std::string_view refusing_rule(const std::vector<std::string>& values, std::string_view agent) {
  for (const std::string_view value : values) {
    bool ours = true;
    for (size_t begin = 0; begin <= value.size();) {
      const size_t end = std::min(value.find(',', begin), value.size());
      std::string_view rule = trimmed(value.substr(begin, end - begin));
      begin = end + 1;
      const size_t colon = rule.find(':');
      if (colon != std::string_view::npos) {
        const std::string_view name = trimmed(rule.substr(0, colon));
        if (takes_value(name)) continue;
        ours = same_word(name, agent) || name == "*";
        rule = trimmed(rule.substr(colon + 1));
      }
      if (!ours) continue;
      for (const std::string_view refusing : {"noai", "noimageai", "noindex", "noimageindex", "none"}) {
        if (same_word(rule, refusing)) return refusing;
      }
    }
  }
  return {};
}

}  // namespace mdm::ingest
