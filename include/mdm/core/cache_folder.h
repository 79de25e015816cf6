// Where what was downloaded is kept.
#pragma once

#include <filesystem>

namespace mdm {

/// `$MDM_HOME/cache`, else `$XDG_CACHE_HOME/mdm`, else `~/.cache/mdm`; ConfigError when not even a home is known.
std::filesystem::path default_cache_folder();

}  // namespace mdm
