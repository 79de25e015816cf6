#include "mdm/text/text_model.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "mdm/core/cache_folder.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "text/json_text.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kExpectedFiles =
    "A text model is a folder with config.json, its weights (model.safetensors or pytorch_model.bin; or "
    "model.safetensors.index.json or pytorch_model.bin.index.json with the shards that it names) and spiece.model.";

std::string display(const fs::path& path) { return printable(path.string(), 1000); }

// A name that can't lead anywhere else: of letters, digits, '.', '_' and '-', and not of dots alone.
bool is_bare_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '.' || name.front() == '-') return false;
  if (name.find("..") != std::string_view::npos) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  return text;
}

fs::path from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? fs::path() : fs::path(value);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool lies_below(const fs::path& path, const fs::path& folder) {
  const auto [end, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end() && rest != path.end();
}

// `folder/name`; CheckpointError if it is a link that leads out of the folder (or, in a snapshot of the
// Hugging Face cache, elsewhere than to the model's blobs).
fs::path checked_member(const fs::path& folder, const std::string& name) {
  const fs::path member = folder / name;
  std::error_code code;
  const fs::path real = fs::canonical(member, code);
  if (code) fail<CheckpointError>(display(member), ": ", code.message());
  const fs::path home = fs::canonical(folder, code);
  if (code) fail<CheckpointError>(display(folder), ": ", code.message());
  if (lies_below(real, home)) return member;
  const bool snapshot = home.parent_path().filename() == "snapshots";
  if (snapshot && lies_below(real, home.parent_path().parent_path() / "blobs")) return member;
  fail<CheckpointError>(display(member), ": is a link that leads out of the text model's folder, to ", display(real));
}

// The shards that a `*.index.json` names, sorted.
std::vector<fs::path> shards_of(const fs::path& folder, const std::string& index_name) {
  const fs::path index = checked_member(folder, index_name);
  const auto json = nlohmann::json::parse(read_text_file(index, size_t{64} << 20), nullptr, false);
  if (json.is_discarded() || !json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    fail<CheckpointError>(display(index), ": expected a JSON object with an object weight_map");
  }
  std::set<std::string> names;
  for (const auto& [key, file] : json["weight_map"].items()) {
    if (!file.is_string() || !is_bare_name(file.get_ref<const std::string&>())) {
      fail<CheckpointError>(display(index), ": '", printable(key), "' is in ", shown_json(file),
                            "; expected the name of a file in the same folder");
    }
    names.insert(file.get<std::string>());
  }
  if (names.empty()) fail<CheckpointError>(display(index), ": weight_map is empty");
  std::vector<fs::path> shards;
  for (const auto& name : names) {
    if (!is_there(folder / name)) {
      fail<CheckpointError>(display(folder), ": lacks ", name, ", which ", index_name, " names");
    }
    shards.push_back(checked_member(folder, name));
  }
  return shards;
}

}  // namespace

bool is_model_id(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return is_bare_name(text);
  return is_bare_name(text.substr(0, slash)) && is_bare_name(text.substr(slash + 1));
}

fs::path text_model_folder(const fs::path& folder, const std::string& id) {
  std::string name = id;
  if (const size_t slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
  return folder / name;
}

fs::path hugging_face_cache() {
  if (const auto hub = from_environment("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const auto home = from_environment("HF_HOME"); !home.empty()) return home / "hub";
  if (const auto cache = from_environment("XDG_CACHE_HOME"); !cache.empty()) return cache / "huggingface" / "hub";
  if (const auto home = from_environment("HOME"); !home.empty()) return home / ".cache" / "huggingface" / "hub";
  return {};
}

namespace {

// What `download_dataset pretrained` has brought; empty when it has not.
fs::path downloaded(const std::string& id) {
  try {
    const fs::path folder = text_model_folder(default_cache_folder() / "text", id);
    return is_folder(folder) ? folder : fs::path();
  } catch (const ConfigError&) {  // not even a home is known
    return {};
  }
}

}  // namespace

fs::path resolve_text_model(const std::string& text_model, const fs::path& hub_cache) {
  if (text_model.empty()) fail<ConfigError>("text_model is empty; expected a folder or an id. ", kExpectedFiles);
  if (is_folder(text_model)) return text_model;
  if (!is_model_id(text_model)) {
    fail<ConfigError>("text_model '", printable(text_model),
                      "': there is no such folder, and it is no id like "
                      "google/flan-t5-xl. ",
                      kExpectedFiles);
  }
  std::string entry = "models--" + text_model;
  if (const size_t slash = entry.find('/'); slash != std::string::npos) entry.replace(slash, 1, "--");
  const fs::path home = hub_cache / entry;
  if (hub_cache.empty() || !is_there(home / "refs" / "main")) {
    if (const fs::path own = downloaded(text_model); !own.empty()) return own;
    fail<ConfigError>("text_model '", text_model, "': there is no such folder, and the Hugging Face cache (",
                      display(hub_cache), ") has no ", entry, "/refs/main. ", kExpectedFiles,
                      " To get it: download_dataset pretrained --text-model ", text_model,
                      "; or huggingface-cli download ", text_model,
                      " config.json spiece.model '*.safetensors*'; or copy such a folder and name it as text_model.");
  }
  const std::string revision = trimmed(read_text_file(home / "refs" / "main", 4096));
  if (!is_bare_name(revision)) {
    fail<ConfigError>(display(home / "refs" / "main"), ": holds '", printable(revision), "', which is no revision");
  }
  const fs::path snapshot = home / "snapshots" / revision;
  std::error_code code;
  const fs::path real = fs::canonical(snapshot, code), real_home = fs::canonical(home, code);
  if (code || !is_folder(snapshot) || !lies_below(real, real_home / "snapshots")) {
    fail<ConfigError>("text_model '", text_model, "': the Hugging Face cache has no folder ", display(snapshot),
                      ", which its refs/main names; download it again: huggingface-cli download ", text_model);
  }
  return snapshot;
}

TextModelFiles find_text_model_files(const fs::path& folder) {
  if (!is_folder(folder)) fail<ConfigError>(display(folder), ": is no folder. ", kExpectedFiles);
  if (!is_there(folder / "config.json")) fail<ConfigError>(display(folder), ": has no config.json. ", kExpectedFiles);
  TextModelFiles files;
  files.folder = folder;
  files.config = checked_member(folder, "config.json");
  if (is_there(folder / "spiece.model")) files.spiece_model = checked_member(folder, "spiece.model");
  for (const std::string name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!is_there(folder / name)) continue;
    const bool index = name.size() > 5 && name.compare(name.size() - 5, 5, ".json") == 0;
    files.weights = index ? shards_of(folder, name) : std::vector<fs::path>{checked_member(folder, name)};
    return files;
  }
  fail<ConfigError>(display(folder), ": has no weights. ", kExpectedFiles);
}

}  // namespace mdm
