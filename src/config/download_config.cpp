#include "mdm/config/download_config.h"

#include <algorithm>

#include "config/yaml_reader.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

using settings::Value;

std::string text_of(const std::filesystem::path& file) {
  try {
    return read_text_file(file, settings::kMaxYamlBytes);
  } catch (const Error& error) {
    fail<ConfigError>(error.what());
  }
}

}  // namespace

std::vector<std::string> read_download_config(const std::filesystem::path& file, const std::string& subset) {
  const std::string shown = printable(file.string(), 1000);
  std::vector<std::string> warnings;
  const Value root = settings::read_yaml(text_of(file), file.string(), &warnings);
  for (const std::string& warning : warnings) log_warning(warning);
  std::string key_name = subset;
  std::replace(key_name.begin(), key_name.end(), '-', '_');  // as in all our files
  const Value* part = root.find(key_name);
  if (part == nullptr) {
    std::string names;
    for (const std::string& key : root.keys) names += concat(names.empty() ? "" : ", ", printable(key));
    fail<ConfigError>(shown, ": has no subset '", printable(subset), "'; there is ", names.empty() ? "none" : names);
  }
  const Value* files = part->find("files");
  std::vector<std::string> names;
  if (files != nullptr && files->kind == Value::Kind::kScalar) names.push_back(files->text);
  if (files != nullptr && files->kind == Value::Kind::kList) {
    for (const Value& item : files->items) {
      if (item.kind != Value::Kind::kScalar) fail<ConfigError>(item.origin.text(), ": a list of names is expected");
      names.push_back(item.text);
    }
  }
  if (names.empty()) {
    fail<ConfigError>(part->origin.text(), ": ", printable(subset), " has no list `files` of names");
  }
  return names;
}

}  // namespace mdm
