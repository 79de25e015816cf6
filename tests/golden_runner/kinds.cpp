// How each kind of case is recognised by what lies in a folder.
#include <algorithm>
#include <map>

#include "golden_runner/runner.h"
#include "mdm/core/error.h"

namespace mdm::golden {
namespace {

using Check = void (*)(const std::filesystem::path&, const Context&, Report&);

// Kinds that case.json names.
const std::map<std::string, Check>& kinds_by_name() {
  static const std::map<std::string, Check> kinds = {
      {"unet", check_unet},
      {"nested", check_nested},
      {"nested_init_inner", check_nested},
      {"schedules", check_schedules},
      {"conversions", check_diffusion},
      {"thresholds", check_diffusion},
      {"unet_losses", check_diffusion},
      {"nested_losses", check_diffusion},
      {"sampler", check_sampler},
      {"end_to_end", check_end_to_end},
      {"train", check_train},
  };
  return kinds;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Kinds whose cases are single files, or folders without a case.json.
void add_file_case(const std::filesystem::path& file, std::vector<Case>& out) {
  const std::string name = file.filename().string();
  const auto add = [&](const char* kind, Check check) { out.push_back({name, kind, file, check}); };
  if (ends_with(name, ".keys.tsv") &&
      std::filesystem::exists(file.parent_path() / (name.substr(0, name.size() - 9) + ".effective.json"))) {
    add("keys", check_keys);
  }
  if (ends_with(name, ".config.yaml")) {
    const auto json = file.parent_path() / (name.substr(0, name.size() - 12) + ".json");
    if (std::filesystem::exists(json)) {
      const auto content = read_json(json);
      if (content.is_object() && content.value("kind", "") == "init") add("init", check_init);
    }
  }
  if (ends_with(name, ".json") &&
      std::filesystem::exists(std::filesystem::path(file).replace_extension(".safetensors"))) {
    if (name == "decoded.json") add("reader", check_reader_decode);
    if (name == "resized.json") add("reader", check_reader_resize);
    if (std::filesystem::is_directory(file.parent_path() / ".." / "data")) {
      const auto content = read_json(file);
      if (content.is_object() && content.contains("reader_config")) add("reader", check_reader_run);
    }
  }
  if (ends_with(name, ".jsonl")) add("tokenizer", check_tokenizer);
  if (ends_with(name, ".pth") && std::filesystem::exists(file.parent_path() / "manifest.json")) {
    add("checkpoint", check_checkpoint);
  }
}

}  // namespace

std::vector<Case> cases_in(const std::filesystem::path& folder) {
  std::vector<Case> cases;
  const auto case_file = folder / "case.json";
  if (std::filesystem::exists(case_file)) {
    std::string kind = read_json(case_file).value("kind", "");
    auto found = kinds_by_name().find(kind);
    if (found == kinds_by_name().end() && kind.rfind("nested_losses", 0) == 0)
      found = kinds_by_name().find("nested_losses");
    cases.push_back(
        {"", kind.empty() ? "unnamed" : kind, folder, found == kinds_by_name().end() ? nullptr : found->second});
    return cases;
  }
  if (std::filesystem::exists(folder / "io.safetensors") && std::filesystem::is_directory(folder / "model")) {
    cases.push_back({"", "t5", folder, check_t5});
    return cases;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) add_file_case(file, cases);
  return cases;
}

}  // namespace mdm::golden
