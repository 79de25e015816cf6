#include "mdm/core/cache_folder.h"

#include <cstdlib>

#include "mdm/core/error.h"

namespace mdm {

std::filesystem::path default_cache_folder() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const auto own = variable("MDM_HOME"); !own.empty()) return own / "cache";
  // The specification wants relative paths ignored.
  if (const auto cache = variable("XDG_CACHE_HOME"); cache.is_absolute()) return cache / "mdm";
  if (const auto home = variable("HOME"); !home.empty()) return home / ".cache" / "mdm";
  fail<ConfigError>("cache_dir: none is set, and neither MDM_HOME, XDG_CACHE_HOME nor HOME says where one could be");
}

}  // namespace mdm
