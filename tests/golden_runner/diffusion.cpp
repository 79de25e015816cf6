// Conversions, thresholds and losses.
#include <ATen/ATen.h>

#include <cctype>
#include <map>

#include "golden_runner/diffusion_case.h"
#include "mdm/core/error.h"
#include "mdm/diffusion/loss.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/prediction.h"
#include "mdm/diffusion/sampler.h"

namespace mdm::golden {
namespace {

const std::map<std::string, PredictionType> kPredictions = {
    {"DDPM", PredictionType::kDdpm}, {"DDIM", PredictionType::kDdim}, {"V_PREDICTION", PredictionType::kVPrediction}};
const std::map<std::string, ThresholdType> kThresholds = {{"NONE", ThresholdType::kNone},
                                                          {"CLIP", ThresholdType::kClip},
                                                          {"DYNAMIC", ThresholdType::kDynamic},
                                                          {"DYNAMIC_IF", ThresholdType::kDynamicIf}};

struct Tolerance {
  double atol, rtol;
};

Tolerance tolerance_of(const nlohmann::json& info) {
  return {info.at("tolerance").at("atol").get<double>(), info.at("tolerance").at("rtol").get<double>()};
}

/// "a.b.c" -> {a, b, c}; numbers keep their point ("eta_0.5").
std::vector<std::string> name_parts(const std::string& name) {
  std::vector<std::string> out = {""};
  for (size_t i = 0; i < name.size(); ++i) {
    const bool decimal = i > 0 && i + 1 < name.size() && std::isdigit(static_cast<unsigned char>(name[i - 1])) &&
                         std::isdigit(static_cast<unsigned char>(name[i + 1]));
    if (name[i] == '.' && !decimal) {
      out.emplace_back();
    } else {
      out.back() += name[i];
    }
  }
  return out;
}

struct Conversions {
  at::Tensor x_0, eps, prediction, noise, gamma, gamma_next;  // gammas (B, 1, 1, 1)
  at::Tensor x_t;

  /// One reverse step: x at the next level (first) and x_0 (second).
  std::pair<at::Tensor, at::Tensor> step(PredictionType type, std::optional<double> eta, ThresholdType threshold,
                                         bool with_noise) const {
    std::vector<at::Tensor> next, clean;
    for (int64_t i = 0; i < x_t.size(0); ++i) {
      const double g = gamma[i].item<float>(), g_next = gamma_next[i].item<float>();
      const at::Tensor x = x_t.narrow(0, i, 1);
      const at::Tensor x0 =
          threshold_x_0(convert_prediction(prediction.narrow(0, i, 1), type, PredictionType::kX0, x, g), threshold);
      const StepCoefficients c = step_coefficients(g, g_next, eta);
      next.push_back(x0 * c.x_0 + x * c.x_t + noise.narrow(0, i, 1) * (with_noise ? c.noise : 0));
      clean.push_back(x0);
    }
    return {at::cat(next), at::cat(clean)};
  }

  at::Tensor compute(const std::string& name) const {
    const std::vector<std::string> parts = name_parts(name);
    if (name == "x_t") return x_t;
    if (parts[0] == "step" && parts.size() == 6) {
      const std::string eta = parts[2].substr(4);
      const auto [next, clean] =
          step(kPredictions.at(parts[1]), eta == "None" ? std::nullopt : std::optional<double>(std::stod(eta)),
               kThresholds.at(parts[3]), parts[4] == "noise_1");
      return parts[5] == "x0" ? clean : next;
    }
    if (parts.size() != 2) return {};
    const PredictionType type = kPredictions.at(parts[1]);
    if (parts[0] == "target") return prediction_target(type, x_0, eps, gamma);
    if (parts[0] == "pred_from_x0") return convert_prediction(x_0, PredictionType::kX0, type, x_t, gamma);
    if (parts[0] == "x0_from_pred") return convert_prediction(prediction, type, PredictionType::kX0, x_t, gamma);
    if (parts[0] == "eps_from_pred") return convert_prediction(prediction, type, PredictionType::kDdpm, x_t, gamma);
    return {};
  }
};

void check_conversions(const TensorFile& inputs, const TensorFile& outputs, Tolerance tolerance, Report& report) {
  const auto first = [](const at::Tensor& t) { return t.narrow(1, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1).contiguous(); };
  Conversions values{inputs.tensor("x0"),
                     inputs.tensor("eps"),
                     inputs.tensor("pred"),
                     inputs.tensor("noise"),
                     first(inputs.tensor("g")),
                     first(inputs.tensor("g_last")),
                     {}};
  report.require(values.gamma.expand_as(values.x_0).equal(inputs.tensor("g")), "g is one number per example");
  values.x_t = add_noise(values.x_0, values.eps, values.gamma);
  for (const TensorEntry& entry : outputs.entries()) {
    report.compare(entry.name, values.compute(entry.name), outputs.tensor(entry.name), tolerance.atol, tolerance.rtol);
  }
}

void check_thresholds(const TensorFile& inputs, const TensorFile& outputs, Tolerance tolerance, Report& report) {
  for (const TensorEntry& entry : outputs.entries()) {
    const size_t dot = entry.name.find(".scale");
    const ThresholdType type = kThresholds.at(entry.name.substr(0, dot));
    const double scale = std::stod(entry.name.substr(dot + 6));
    report.compare(entry.name, threshold_x_0(inputs.tensor("x0"), type, scale), outputs.tensor(entry.name),
                   tolerance.atol, tolerance.rtol);
  }
}

/// The loss of one sample under the settings of one combo.
class LossCombo {
 public:
  LossCombo(const nlohmann::json& combo, const LoadedModel& loaded, const TensorFile& inputs, const TensorFile& outputs,
            Tolerance tolerance, Report& report)
      : key_(combo.at("key")), loaded_(loaded), outputs_(outputs), tolerance_(tolerance), report_(report) {
    Compat compat;
    compat.unscaled_targets = true;
    nested_ = loaded.config.model.nested();
    const DiffusionLoss loss(diffusion_config_of(combo.at("diffusion_config"), loaded.config.model.kind()),
                             loaded.config.model, at::kCPU, compat);
    images_ = inputs.tensor("images");
    draw(combo, loss.schedule());
    const TrainingInputs ready = loss.prepare(images_, times_, noise_);
    const std::optional<TextEmbedding> text = case_text(inputs);
    const Conditioning conditioning =
        loaded.model->condition(text ? &*text : nullptr, named_micros(inputs, *loaded.model), images_.size(0));
    const std::vector<at::Tensor> predictions = loaded.model->forward(ready.x_t, times_, conditioning);
    compare_values(loss, ready, predictions);
    const LossValue value = loss(ready, predictions);
    compare("loss", value.per_example);
    compare("total_loss", value.mean());
    report_.compare(key_ + " total_loss of case.json", value.mean().item<double>(),
                    combo.at("total_loss").get<double>(), tolerance_.atol, tolerance_.rtol);
    if (outputs_.find(key_ + ".weights") != nullptr) compare("weights", ready.weights);
  }

 private:
  std::string level_name(const std::string& name, size_t level) const {
    return nested_ ? name + "." + std::to_string(level) : name;
  }
  /// Times and noise in the reference's order, which must be the recorded ones.
  void draw(const nlohmann::json& combo, const Schedule& schedule) {
    at::Generator generator = make_generator(combo.at("torch_cpu_seed").get<uint64_t>());
    times_ = at::randint(0, schedule.steps(), {images_.size(0)}, generator, at::TensorOptions().dtype(at::kLong));
    exact("times", times_);
    for (size_t i = 0; i < schedule.levels(); ++i) {
      const int64_t ratio = schedule.scales()[0] / schedule.scales()[i];
      noise_.push_back(at::randn({images_.size(0), images_.size(1), images_.size(2) / ratio, images_.size(3) / ratio},
                                 generator, at::TensorOptions()));
      exact(level_name("eps", i), noise_[i]);
    }
  }
  /// Our levels of a mixed batch hold only the rows that are used; the recorded ones all, or zeros.
  void compare_values(const DiffusionLoss& loss, const TrainingInputs& ready,
                      const std::vector<at::Tensor>& predictions) {
    const std::vector<at::Tensor> images = level_images(images_, loss.schedule().scales());
    for (size_t i = 0; i < predictions.size(); ++i) {
      compare(level_name("images", i), images[i]);
      compare_rows(level_name("x_t", i), ready.x_t[i]);
      compare_rows(level_name("target", i), ready.targets[i]);
      compare_rows(level_name("g", i), ready.gammas[i].flatten());
      compare_rows(level_name("g_last", i), at::tensor(loss.schedule().gammas(i)).index_select(0, times_));
      compare_rows(level_name("pred_raw", i), predictions[i]);
      const at::Tensor recorded = optional_tensor(outputs_, key_ + "." + level_name("pred_raw", i));
      const int64_t rows = predictions[i].size(0);
      if (!recorded.defined() || rows == images_.size(0)) continue;
      report_.require(recorded.slice(0, rows).abs().max().item<double>() == 0, key_ + " rows without this level are 0");
    }
  }
  void compare(const std::string& name, const at::Tensor& actual) {
    const at::Tensor expected = optional_tensor(outputs_, key_ + "." + name);
    if (expected.defined()) report_.compare(key_ + "." + name, actual, expected, tolerance_.atol, tolerance_.rtol);
  }
  void compare_rows(const std::string& name, const at::Tensor& actual) {
    const at::Tensor expected = optional_tensor(outputs_, key_ + "." + name);
    if (!expected.defined()) return;
    report_.compare(key_ + "." + name, actual, expected.narrow(0, 0, std::min(actual.size(0), expected.size(0))),
                    tolerance_.atol, tolerance_.rtol);
  }
  void exact(const std::string& name, const at::Tensor& actual) {
    report_.exact(key_ + "." + name, actual, outputs_.tensor(key_ + "." + name));
  }

  std::string key_;
  const LoadedModel& loaded_;
  const TensorFile& outputs_;
  Tolerance tolerance_;
  Report& report_;
  bool nested_ = false;
  at::Tensor images_, times_;
  std::vector<at::Tensor> noise_;
};

}  // namespace

void check_diffusion(const std::filesystem::path& path, const Context&, Report& report) {
  const c10::AutoGradMode gradients(false);
  const nlohmann::json info = read_json(path / "case.json");
  const Tolerance tolerance = tolerance_of(info);
  const TensorFile inputs = TensorFile::open(path / "inputs.safetensors");
  const TensorFile outputs = TensorFile::open(path / "outputs.safetensors");
  const std::string kind = info.at("kind");
  if (kind == "conversions") return check_conversions(inputs, outputs, tolerance, report);
  if (kind == "thresholds") return check_thresholds(inputs, outputs, tolerance, report);
  const LoadedModel loaded = load_case_model(path);
  for (const nlohmann::json& combo : info.at("combos")) {
    LossCombo(combo, loaded, inputs, outputs, tolerance, report);
  }
}

}  // namespace mdm::golden
