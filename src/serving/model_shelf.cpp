// The models that a worker draws with.
#include "serving/model_shelf.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/media/png.h"
#include "pipeline/settings.h"

namespace mdm::serving {
namespace {

bool is_name(const std::string& name) {
  constexpr size_t kMost = 64;
  return !name.empty() && name.size() <= kMost && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  });
}

}  // namespace

ModelSpec ModelSpec::parse(const std::string& text) {
  ModelSpec spec;
  std::string files = text;
  const size_t equals = text.find('=');
  if (equals != std::string::npos) {
    spec.name = text.substr(0, equals);
    files = text.substr(equals + 1);
  }
  // A file whose own name has a colon is meant whole.
  const size_t colon = files.rfind(':');
  std::error_code ignored;
  if (colon != std::string::npos && !std::filesystem::exists(files, ignored)) {
    spec.configs.emplace_back(files.substr(colon + 1));
    files.resize(colon);
  }
  if (files.empty() || (!spec.configs.empty() && spec.configs.front().empty())) {
    fail<ConfigError>("model: '", printable(text), "' is not NAME=CHECKPOINT or NAME=CHECKPOINT:CONFIG");
  }
  spec.checkpoint = files;
  if (equals == std::string::npos) spec.name = spec.checkpoint.stem().string();
  if (!is_name(spec.name)) {
    fail<ConfigError>("model: the name '", printable(spec.name),
                      "' may have up to 64 letters, digits, '.', '-' and '_' only; give NAME=CHECKPOINT");
  }
  return spec;
}

ModelShelf::ModelShelf(const std::vector<ModelSpec>& specs, const Overrides& overrides, int64_t memory)
    : memory_(memory) {
  const auto encoders = share_text_encoders();
  for (const ModelSpec& spec : specs) {
    if (find(spec.name) != nullptr) fail<ConfigError>("model: the name '", spec.name, "' is given twice");
    Pipeline pipeline = Pipeline::from_checkpoint(spec.checkpoint, spec.configs, overrides, encoders);
    models_.push_back(std::make_unique<ShelvedModel>(
        ShelvedModel{spec.name, spec.checkpoint.filename().string(), std::move(pipeline)}));
  }
}

const ShelvedModel* ModelShelf::find(const std::string& name) const {
  const auto found =
      std::find_if(models_.begin(), models_.end(), [&](const auto& model) { return model->name == name; });
  return found == models_.end() ? nullptr : found->get();
}

ShelvedModel& ModelShelf::get(const std::string& name) {
  for (const auto& model : models_) {
    if (model->name == name) return *model;
  }
  fail("there is no model '", printable(name), "'");
}

void ModelShelf::make_room_for(const ShelvedModel& wanted) {
  if (wanted.pipeline.loaded()) return;
  while (true) {
    int64_t bytes = wanted.pipeline.weight_bytes();
    ShelvedModel* oldest = nullptr;
    for (const auto& model : models_) {
      if (!model->pipeline.loaded()) continue;
      bytes += model->pipeline.weight_bytes();
      if (oldest == nullptr || model->used < oldest->used) oldest = model.get();
    }
    if (bytes <= memory_ || oldest == nullptr) return;
    log_info("model ", oldest->name, " is unloaded to make room for ", wanted.name);
    oldest->pipeline.unload();
  }
}

void ModelShelf::make(const std::string& model, const std::vector<PictureRequest>& requests, const SampleConfig& sample,
                      const GenerationCallbacks& callbacks) {
  at::init_num_threads();  // how many threads compute is a setting of each thread that starts them
  ShelvedModel& one = get(model);
  one.used = ++uses_;
  make_room_for(one);
  one.pipeline.generate(requests, sample, callbacks);
}

std::string ModelShelf::encode(const std::string& model, const Picture& picture, const SampleConfig& sample) {
  const ShelvedModel& one = get(model);
  return encode_png(picture.image, settings_text(picture, sample, one.pipeline.config(), one.checkpoint_name));
}

}  // namespace mdm::serving
