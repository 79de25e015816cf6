#include "config/support.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "mdm/core/error.h"

namespace mdm::testing {

std::string yaml_error(const std::string& yaml, const Overrides& overrides, ConfigUse use) {
  try {
    load_yaml_text(yaml, "test.yaml", overrides, use);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

LoadedConfig from_yaml(const std::string& yaml, const Overrides& overrides, ConfigUse use) {
  return load_yaml_text(yaml, "test.yaml", overrides, use);
}

bool mentions(const std::vector<std::string>& lines, const std::string& part) {
  for (const auto& line : lines) {
    if (line.find(part) != std::string::npos) return true;
  }
  return false;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<std::filesystem::path> reference_dir() {
  const char* named = std::getenv("MDM_REFERENCE_DIR");
  const std::filesystem::path folder =
      named ? std::filesystem::path(named) : std::filesystem::path(MDM_PROJECT_DIR) / "../shared/reference";
  std::error_code error;
  if (!std::filesystem::is_directory(folder / "configs", error)) return std::nullopt;
  return folder;
}

std::filesystem::path temporary_file(const std::string& name, const std::string& text) {
  // Of this process, and gone with it.
  static const struct Folder {
    std::filesystem::path path =
        std::filesystem::path(::testing::TempDir()) / ("mdm_config_" + std::to_string(::getpid()));
    Folder() { std::filesystem::create_directories(path); }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  } folder;
  std::ofstream(folder.path / name, std::ios::binary) << text;
  return folder.path / name;
}

}  // namespace mdm::testing
