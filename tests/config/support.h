// What the tests of the config room share.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mdm/config/config.h"

namespace mdm::testing {

/// The text of the ConfigError that loading this YAML throws; "" when it loads.
std::string yaml_error(const std::string& yaml, const Overrides& overrides = {}, ConfigUse use = ConfigUse::kInspect);
LoadedConfig from_yaml(const std::string& yaml, const Overrides& overrides = {}, ConfigUse use = ConfigUse::kInspect);
bool mentions(const std::vector<std::string>& lines, const std::string& part);
std::string read_file(const std::filesystem::path& path);

/// Folder of the reference's data files, if it is there.
std::optional<std::filesystem::path> reference_dir();

/// A YAML file with this text in the test's temporary folder.
std::filesystem::path temporary_file(const std::string& name, const std::string& text);

}  // namespace mdm::testing
