// Paths for errors and logs.
#pragma once

#include <filesystem>
#include <string>

#include "mdm/core/error.h"

namespace mdm::ingest {

inline std::string shown(const std::filesystem::path& path) { return printable(path.string(), 1000); }

}  // namespace mdm::ingest
