#include "pipeline/loaded_checkpoint.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mdm/checkpoint/inspect.h"
#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"

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
    // An item of that name may also be a number; only a dictionary of tensors counts.
    const std::vector<std::string> places = inspect_checkpoint(path).tensor_dictionaries;
    if (std::find(places.begin(), places.end(), name) == places.end()) continue;
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

namespace {

std::vector<NamedTensor> named_parameters(const UNet& model) {
  std::vector<NamedTensor> out;
  for (const auto& item : model.named_parameters()) out.push_back({item.key(), item.value()});
  return out;
}

LoadOptions options_for_models() {
  LoadOptions options;
  options.ignored_prefix = concat(kTextEncoderSection, ".");  // beside the model, not of it
  return options;
}

}  // namespace

void load_packed(const TensorFile& file, UNet& model, int64_t rows, int64_t height, int64_t width) {
  LoadOptions options = options_for_models();
  options.share = true;
  const std::vector<NamedTensor> parameters = named_parameters(model);
  load_state_dict(file, parameters, options);
  model.pack(rows, height, width);
  own_tensors(parameters);
}

void load_weights(const TensorFile& file, UNet& model, bool allow_partial, bool compare_only) {
  LoadOptions options = options_for_models();
  options.allow_partial = allow_partial;
  options.compare_only = compare_only;
  const LoadReport report = load_state_dict(file, named_parameters(model), options);
  if (!allow_partial || compare_only) return;
  if (!report.missing.empty() || !report.unexpected.empty() || !report.mismatched.empty()) {
    log_warning(printable(file.path().string()), ": loaded in part: ", report.missing.size(),
                " tensors of the model are missing and stay as drawn, ", report.unexpected.size(),
                " of the file are not in the model, ", report.mismatched.size(), " have another shape");
  }
}

}  // namespace mdm
