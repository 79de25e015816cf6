// One forward pass of a plain UNet, values on the way, and gradients.
#include <ATen/ATen.h>

#include <map>

#include "golden_runner/model_case.h"

namespace mdm::golden {
namespace {

// Keeps the tensors that the case has recorded.
class Recorder : public Probe {
 public:
  bool wants(const std::string& name) override { return name.find("text_weights") == std::string::npos; }
  void on_tensor(const std::string& name, const at::Tensor& value) override { tensors[name] = value; }
  std::map<std::string, at::Tensor> tensors;
};

}  // namespace

void check_unet(const std::filesystem::path& path, const Context&, Report& report) {
  const nlohmann::json info = read_json(path / "case.json");
  const double atol = info.at("tolerance").at("atol").get<double>();
  const double rtol = info.at("tolerance").at("rtol").get<double>();
  const LoadedModel loaded = load_case_model(path);
  const TensorFile inputs = TensorFile::open(path / "inputs.safetensors");
  const TensorFile outputs = TensorFile::open(path / "outputs.safetensors");
  const bool with_gradients = std::filesystem::exists(path / "grads.safetensors");
  const c10::AutoGradMode gradients(with_gradients);

  at::Tensor x_t = inputs.tensor("x_t").clone();
  std::optional<TextEmbedding> text = case_text(inputs);
  if (with_gradients) {
    x_t.requires_grad_();
    if (text) text->lm_outputs.requires_grad_();
  }
  const at::Tensor times = inputs.tensor("times");
  const Conditioning conditioning = loaded.model->condition(text ? &*text : nullptr, case_micros(inputs), x_t.size(0));
  Recorder recorder;
  ForwardContext context;
  context.probe = &recorder;
  const auto [predictions, features] =
      loaded.model->denoise({x_t}, optional_tensor(inputs, "x_feat"), times, conditioning, context);

  std::map<std::string, at::Tensor> own = {{"out", predictions[0]},
                                           {"out_feat", features},
                                           {"temb_time", loaded.model->time_embedding(times)},
                                           {"cond_emb", conditioning.pooled},
                                           {"temb_micro", conditioning.micro[0]},
                                           {"temb_total", recorder.tensors["0.temb"]},
                                           {"conditioning_after_head", conditioning.text}};
  for (const auto& [name, value] : recorder.tensors) own["trace." + name.substr(2)] = value;
  for (const TensorEntry& entry : outputs.entries()) {
    report.compare(entry.name, own[entry.name], outputs.tensor(entry.name), atol, rtol);
  }
  if (!with_gradients) return;

  const TensorFile expected = TensorFile::open(path / "grads.safetensors");
  const at::Tensor loss = (predictions[0] * inputs.tensor("loss_weight")).sum();
  loss.backward();
  const nlohmann::json& tolerance = info.at("grads_tolerance");
  compare_gradients(*loaded.model, expected, tolerance, report);
  const auto compare_input = [&](const std::string& name, const at::Tensor& gradient) {
    if (expected.find(name) == nullptr) return;
    const at::Tensor wanted = expected.tensor(name);
    report.compare("gradient of " + name, gradient, wanted,
                   tolerance.at("rel_to_tensor_max").get<double>() * wanted.abs().max().item<double>() +
                       tolerance.at("plus_abs").get<double>(),
                   0);
  };
  compare_input("input.x_t", x_t.grad());
  if (text) compare_input("input.lm_outputs", text->lm_outputs.grad());
}

}  // namespace mdm::golden
