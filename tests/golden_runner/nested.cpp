// One forward pass of a nested UNet over all its levels, mixed batches, gradients, and the
// initialisation of the inner level from a checkpoint.
#include <ATen/ATen.h>

#include <algorithm>

#include "golden_runner/model_case.h"
#include "mdm/core/error.h"

namespace mdm::golden {
namespace {

std::vector<at::Tensor> levels_of(const TensorFile& file, const std::string& prefix) {
  std::vector<at::Tensor> levels;
  while (file.find(prefix + std::to_string(levels.size())) != nullptr) {
    levels.push_back(file.tensor(prefix + std::to_string(levels.size())).clone());
  }
  return levels;
}

// Fresh outer weights, then the inner level's from a file in the reference's lax way: names that only one
// side has are passed over.
void check_init_inner(const std::filesystem::path& path, const nlohmann::json& info, Report& report) {
  const Config config = load_case_config(path / "config.yaml");
  const auto model = make_model(config.model, config.model.levels[0].conditioning_feature_dim);
  model->init({make_generator(info.at("seed").get<uint64_t>()), LayerInit::kZero});
  const TensorFile donor = TensorFile::open(config.model.levels[0].initialize_inner_with_pretrained);
  const auto nested = std::dynamic_pointer_cast<NestedUNet>(model);
  std::vector<std::string> unknown, missing;
  {
    const c10::NoGradGuard no_grad;
    auto inner = nested->inner()->named_parameters();
    for (const TensorEntry& entry : donor.entries()) {
      at::Tensor* target = inner.find(entry.name);
      if (target == nullptr) {
        unknown.push_back(entry.name);
      } else {
        target->copy_(donor.tensor(entry.name));
      }
    }
    for (const auto& item : inner) {
      if (donor.find(item.key()) == nullptr) missing.push_back(item.key());
    }
  }
  report.require(unknown == std::vector<std::string>{info.at("unknown_key").get<std::string>()}, "unknown key");
  report.require(missing == std::vector<std::string>{info.at("missing_key").get<std::string>()}, "missing key");
  const TensorFile expected = TensorFile::open(path / "weights.safetensors");
  for (const auto& item : model->named_parameters()) {
    report.exact(item.key(), item.value(), expected.tensor(item.key()));
  }
}

}  // namespace

void check_nested(const std::filesystem::path& path, const Context&, Report& report) {
  const nlohmann::json info = read_json(path / "case.json");
  if (info.at("kind") == "nested_init_inner") return check_init_inner(path, info, report);
  const double atol = info.at("tolerance").at("atol").get<double>();
  const double rtol = info.at("tolerance").at("rtol").get<double>();
  const LoadedModel loaded = load_case_model(path);
  const TensorFile inputs = TensorFile::open(path / "inputs.safetensors");
  const TensorFile outputs = TensorFile::open(path / "outputs.safetensors");
  const bool with_gradients = std::filesystem::exists(path / "grads.safetensors");
  const c10::AutoGradMode gradients(with_gradients);

  auto scales = level_scales(loaded.config.model);
  report.require(scales == info.at("scales").get<std::vector<int64_t>>(), "scales");
  std::vector<at::Tensor> x_t = levels_of(inputs, "x_t.");
  std::optional<TextEmbedding> text = case_text(inputs);
  if (with_gradients) {
    for (at::Tensor& x : x_t) x.requires_grad_();
    if (text) text->lm_outputs.requires_grad_();
  }
  const Conditioning conditioning =
      loaded.model->condition(text ? &*text : nullptr, case_micros(inputs), x_t.back().size(0));
  const auto predictions = loaded.model->forward(x_t, inputs.tensor("times"), conditioning);
  for (size_t i = 0; i < predictions.size(); ++i) {
    const std::string name = "out." + std::to_string(i);
    report.compare(name, predictions[i], outputs.tensor(name), atol, rtol);
  }
  if (outputs.find("cond_emb") != nullptr) {
    report.compare("cond_emb", conditioning.pooled, outputs.tensor("cond_emb"), atol, rtol);
    report.compare("conditioning_after_head", conditioning.text, outputs.tensor("conditioning_after_head"), atol, rtol);
  }
  if (!with_gradients) return;

  at::Tensor loss;
  for (size_t i = 0; i < predictions.size(); ++i) {
    const at::Tensor part = (predictions[i] * inputs.tensor("loss_weight." + std::to_string(i))).sum();
    loss = loss.defined() ? loss + part : part;
  }
  loss.backward();
  const TensorFile expected = TensorFile::open(path / "grads.safetensors");
  const nlohmann::json& tolerance = info.at("grads_tolerance");
  compare_gradients(*loaded.model, expected, tolerance, report);
  for (size_t i = 0; i < x_t.size(); ++i) {
    const std::string name = "input.x_t." + std::to_string(i);
    if (expected.find(name) == nullptr) continue;
    const at::Tensor wanted = expected.tensor(name);
    report.compare("gradient of " + name, x_t[i].grad(), wanted,
                   tolerance.at("rel_to_tensor_max").get<double>() * wanted.abs().max().item<double>() +
                       tolerance.at("plus_abs").get<double>(),
                   0);
  }
}

}  // namespace mdm::golden
