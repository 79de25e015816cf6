#include "pipeline/loaded_checkpoint.h"

#include <nlohmann/json.hpp>

#include "mdm/checkpoint/state_dict.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

// Names under which files that hold both kinds keep the averaged weights; the plain ones are `state_dict`.
constexpr const char* kAveragedPaths[] = {"ema_state_dict", "state_dict_ema", "model_ema", "ema"};

std::string inner_prefix(size_t levels) {
  std::string prefix;
  for (size_t i = 1; i < levels; ++i) prefix += "inner_unet.";
  return prefix;
}

}  // namespace

TensorFile open_weights(const std::filesystem::path& path, bool ema) {
  TensorFile file = TensorFile::open(path);
  if (!ema) return file;
  const auto items = nlohmann::json::parse(file.metadata_json(), nullptr, /*allow_exceptions=*/false);
  if (!items.is_object()) return file;
  for (const char* name : kAveragedPaths) {
    if (!items.contains(name)) continue;
    TensorFile::Options options;
    options.state_dict_path = name;
    return TensorFile::open(path, options);
  }
  return file;
}

std::string config_json_of(const TensorFile& file) {
  const auto items = nlohmann::json::parse(file.metadata_json(), nullptr, /*allow_exceptions=*/false);
  if (!items.is_object()) return "";
  // Ours keeps the config as JSON text, the reference its parsed arguments as an object.
  for (const char* name : {"config", "args"}) {
    const auto found = items.find(name);
    if (found == items.end()) continue;
    if (found->is_string()) return found->get<std::string>();
    if (found->is_object()) return found->dump();
  }
  return "";
}

int64_t text_width_of(const TensorFile& file, size_t levels) {
  const std::string prefix = inner_prefix(levels);
  for (const char* name : {"lm_proj.weight", "cond_emb.weight"}) {
    const TensorEntry* entry = file.find(prefix + name);
    if (entry != nullptr && entry->shape.size() == 2) return entry->shape[1];
  }
  return -1;
}

void load_weights(const TensorFile& file, UNet& model, bool compare_only) {
  std::vector<NamedTensor> destination;
  for (const auto& item : model.named_parameters()) destination.push_back({item.key(), item.value()});
  LoadOptions options;
  options.compare_only = compare_only;
  load_state_dict(file, destination, options);
}

}  // namespace mdm
