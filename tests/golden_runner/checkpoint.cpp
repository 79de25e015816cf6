// .pth files as the reference and torch.save write them: tensors bit for bit and in order, and the other
// items as the manifest says.
#include "golden_runner/runner.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

#include <algorithm>
#include <regex>
#include <sstream>

namespace mdm::golden {
namespace {

nlohmann::json manifest_entry(const std::filesystem::path& path) {
  const nlohmann::json manifest = read_json(path.parent_path() / "manifest.json");
  for (const auto& entry : manifest.at("files")) {
    if (entry.at("file") == path.filename().string()) return entry;
  }
  return nullptr;
}

// The safetensors file with the same tensors: named by the manifest, or in its description.
std::filesystem::path same_tensors(const nlohmann::json& entry, const std::filesystem::path& folder) {
  const auto& named = entry.at("same_tensors_as");
  if (named.is_string()) return folder / named.get<std::string>();
  const std::string what = entry.value("what", "");
  std::smatch match;
  if (std::regex_search(what, match, std::regex("[A-Za-z0-9_.-]+\\.safetensors"))) return folder / match.str();
  return {};
}

// "a.b" of a description that says where the tensors are: ['a']['b'].
std::optional<std::string> described_path(const nlohmann::json& entry) {
  const std::string what = entry.value("what", "");
  const std::regex key("\\['([^']+)'\\]");
  std::string path;
  for (std::sregex_iterator at(what.begin(), what.end(), key), end; at != end; ++at) {
    path += (path.empty() ? "" : ".") + (*at)[1].str();
  }
  if (path.empty()) return std::nullopt;
  return path;
}

// The file NAME + ending beside `safetensors` whose NAME is the longest start of that file's name.
std::filesystem::path companion(const std::filesystem::path& safetensors, const std::string& ending) {
  std::string stem = safetensors.stem().string();
  for (; !stem.empty(); stem.pop_back()) {
    const auto candidate = safetensors.parent_path() / (stem + ending);
    if (std::filesystem::is_regular_file(candidate)) return candidate;
  }
  return {};
}

std::vector<std::string> expected_names(const std::filesystem::path& safetensors) {
  std::vector<std::string> names;
  const auto list = safetensors.parent_path() / (safetensors.stem().string() + ".json");
  if (std::filesystem::is_regular_file(list)) {
    const nlohmann::json tensors = read_json(list);
    if (!tensors.is_array()) return names;
    for (const auto& tensor : tensors) names.push_back(tensor.at("name"));
    return names;
  }
  const auto table = companion(safetensors, ".keys.tsv");
  if (table.empty()) return names;
  std::istringstream lines(read_text_file(table));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) names.push_back(line.substr(0, line.find('\t')));
  return names;
}

void check_items(const nlohmann::json& values, const nlohmann::json& items, const std::filesystem::path& safetensors,
                 Report& report) {
  for (const auto& [key, value] : values.items()) {
    nlohmann::json expected = value;
    if (value.is_string() && value.get<std::string>().find(".args.json") != std::string::npos) {
      const auto file = companion(safetensors, ".args.json");
      if (file.empty()) return report.fail("no .args.json beside " + safetensors.filename().string());
      expected = read_json(file);
    }
    const bool same = items.contains(key) && items.at(key) == expected;
    report.require(
        same, "item " + key,
        concat("is ", items.contains(key) ? items.at(key).dump() : "absent", ", expected ", expected.dump()));
  }
}

}  // namespace

void check_checkpoint(const std::filesystem::path& path, const Context&, Report& report) {
  const nlohmann::json entry = manifest_entry(path);
  if (entry.is_null()) return report.fail("manifest.json does not list this file");
  TensorFile::Options options;
  if (!entry.at("same_tensors_as").is_string()) options.state_dict_path = described_path(entry);
  const TensorFile file = TensorFile::open(path, options);
  const auto safetensors = same_tensors(entry, path.parent_path());
  if (safetensors.empty()) return report.fail("manifest.json names no safetensors file to compare with");
  const TensorFile expected = TensorFile::open(safetensors);

  report.require(file.entries().size() == expected.entries().size(), "number of tensors",
                 concat(file.entries().size(), ", expected ", expected.entries().size()));
  for (const auto& tensor : expected.entries()) {
    if (file.find(tensor.name) == nullptr) {
      report.fail("tensor " + tensor.name + " is missing");
      continue;
    }
    report.exact(tensor.name, file.tensor(tensor.name), expected.tensor(tensor.name));
  }

  const auto names = expected_names(safetensors);
  report.require(names.size() == file.entries().size(), "list of names", concat("has ", names.size(), " names"));
  for (size_t i = 0; i < std::min(names.size(), file.entries().size()); ++i) {
    report.require(file.entries()[i].name == names[i], concat("tensor ", i),
                   file.entries()[i].name + ", expected " + names[i]);
  }
  if (entry.contains("values") && entry.at("values").is_object()) {
    check_items(entry.at("values"), nlohmann::json::parse(file.metadata_json()), safetensors, report);
  }
}

}  // namespace mdm::golden
