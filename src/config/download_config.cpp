#include "mdm/config/download_config.h"

#include <algorithm>
#include <sstream>

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

Value read_file(const std::filesystem::path& file) {
  std::vector<std::string> warnings;
  Value root = settings::read_yaml(text_of(file), file.string(), &warnings);
  for (const std::string& warning : warnings) log_warning(warning);
  return root;
}

// All of `text` as a number of the stream's kind.
template <typename Number>
Number number_of(const Value& value, const char* what) {
  std::istringstream in(value.text);
  Number number{};
  if (value.kind != Value::Kind::kScalar || value.text.find('-') == 0 || !(in >> number) || !in.eof()) {
    fail<ConfigError>(value.origin.text(), ": '", printable(value.text), "' is not ", what);
  }
  return number;
}

}  // namespace

ScrapeConfig read_scrape_config(const std::filesystem::path& file) {
  const Value root = read_file(file);
  ScrapeConfig config;
  for (size_t i = 0; i < root.keys.size(); ++i) {
    const std::string& key = root.keys[i];
    const Value& value = root.items[i];
    if (key == "cc12m_index" || key == "urls") {
      config.urls = value.text;
    } else if (key == "cc12m_local_dir" || key == "output_dir") {
      config.output_dir = value.text;
    } else if (key == "validation_percentage" || key == "validation_share") {
      config.validation_share = number_of<double>(value, "a share of the pictures, 0 to 0.999");
    } else if (key == "split_seed" || key == "seed") {
      config.seed = number_of<uint64_t>(value, "a whole number");
    } else {
      fail<ConfigError>(value.origin.text(), ": unknown key '", printable(key),
                        "'; there are cc12m_index, cc12m_local_dir, validation_percentage and split_seed");
    }
  }
  return config;
}

std::vector<std::string> read_download_config(const std::filesystem::path& file, const std::string& subset) {
  const std::string shown = printable(file.string(), 1000);
  const Value root = read_file(file);
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
