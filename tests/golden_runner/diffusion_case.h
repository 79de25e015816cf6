// What the diffusion checks share: configs that a case holds as JSON, and micro-conditioning values.
#pragma once

#include <string>

#include "golden_runner/model_case.h"

namespace mdm::golden {

/// A case's `diffusion_config` object, read by the config room (JSON is YAML) for a kind of model.
inline DiffusionConfig diffusion_config_of(const nlohmann::json& object, const std::string& kind) {
  const std::string text = "model: " + kind + "\ndiffusion_config: " + object.dump() + "\n";
  return load_yaml_text(text, "case.json").config.diffusion;
}

/// Tensors named as the outermost level's micro-conditioning items: the reference uses no others.
inline MicroValues named_micros(const TensorFile& inputs, const UNet& model) {
  MicroValues out;
  for (const MicroCondition& item : model.config().micros) {
    if (inputs.find(item.name) != nullptr) out[item.name] = inputs.tensor(item.name);
  }
  return out;
}

}  // namespace mdm::golden
