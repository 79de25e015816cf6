#include "golden_runner/model_case.h"

#include <ATen/ATen.h>

#include <set>

#include "mdm/core/error.h"

namespace mdm::golden {

Config load_case_config(const std::filesystem::path& yaml) { return load_config({yaml}); }

void copy_weights(const TensorFile& file, UNet& model) {
  const c10::NoGradGuard no_grad;
  size_t used = 0;
  for (auto& item : model.named_parameters()) {
    const TensorEntry* entry = file.find(item.key());
    if (entry == nullptr) fail("the case's weights lack ", item.key());
    if (at::IntArrayRef(entry->shape) != item.value().sizes())
      fail("the case's weights have another shape of ", item.key());
    item.value().copy_(file.tensor(item.key()));
    ++used;
  }
  if (used != file.entries().size()) fail("the case's weights have ", file.entries().size() - used, " more tensors");
}

LoadedModel load_case_model(const std::filesystem::path& folder) {
  LoadedModel loaded;
  loaded.config = load_case_config(folder / "config.yaml");
  loaded.model = make_model(loaded.config.model, loaded.config.model.levels[0].conditioning_feature_dim);
  copy_weights(TensorFile::open(folder / "weights.safetensors"), *loaded.model);
  loaded.model->eval();
  return loaded;
}

at::Tensor optional_tensor(const TensorFile& file, const std::string& name) {
  return file.find(name) != nullptr ? file.tensor(name).clone() : at::Tensor();
}

std::optional<TextEmbedding> case_text(const TensorFile& inputs) {
  if (inputs.find("lm_outputs") == nullptr) return std::nullopt;
  return TextEmbedding{inputs.tensor("lm_outputs").clone(), optional_tensor(inputs, "lm_mask"), {}};
}

MicroValues case_micros(const TensorFile& inputs) {
  MicroValues micros;
  for (const TensorEntry& entry : inputs.entries()) {
    if (entry.name.rfind("micros.", 0) == 0) micros[entry.name.substr(7)] = inputs.tensor(entry.name).clone();
  }
  return micros;
}

void compare_gradients(const UNet& model, const TensorFile& expected, const nlohmann::json& tolerance, Report& report) {
  const double relative = tolerance.at("rel_to_tensor_max").get<double>();
  const double absolute = tolerance.at("plus_abs").get<double>();
  std::set<std::string> without;
  for (const auto& item : model.named_parameters()) {
    const at::Tensor& gradient = item.value().grad();
    if (expected.find(item.key()) == nullptr) {
      const bool none = !gradient.defined() || gradient.abs().max().item<double>() == 0;
      report.require(none, "gradient of " + item.key(), "is there, expected none");
      continue;
    }
    const at::Tensor wanted = expected.tensor(item.key());
    report.compare("gradient of " + item.key(), gradient, wanted,
                   relative * wanted.abs().max().item<double>() + absolute, 0);
  }
}

}  // namespace mdm::golden
