// Fresh weights: the reference's initialisation, bit for bit.
#include <ATen/ATen.h>

#include "golden_runner/model_case.h"
#include "mdm/core/error.h"

namespace mdm::golden {

void check_init(const std::filesystem::path& path, const Context&, Report& report) {
  const std::string name = path.filename().string();
  const std::string stem = name.substr(0, name.size() - std::string(".config.yaml").size());
  const nlohmann::json expected = read_json(path.parent_path() / (stem + ".json"));
  const Config config = load_case_config(path);
  const auto model = make_model(config.model, config.model.levels[0].conditioning_feature_dim);
  at::Generator generator = make_generator(expected.at("torch_cpu_seed").get<uint64_t>());
  model->init({generator, LayerInit::kZero});

  const auto own = model->named_parameters();
  const nlohmann::json& tensors = expected.at("tensors");
  report.require(own.size() == tensors.size(), "number of tensors");
  for (const auto& parameter : own) {
    const std::string& key = parameter.key();
    if (!tensors.contains(key)) {
      report.fail("unexpected tensor " + key);
      continue;
    }
    const nlohmann::json& item = tensors.at(key);
    const at::Tensor values = parameter.value().detach().flatten();
    const at::Tensor wide = values.to(at::kDouble);
    report.require(parameter.value().sizes().vec() == item.at("shape").get<std::vector<int64_t>>(), key + ": shape");
    report.compare(key + ": sum", wide.sum().item<double>(), item.at("sum").get<double>(), 1e-12, 1e-10);
    report.compare(key + ": sum of squares", (wide * wide).sum().item<double>(), item.at("sumsq").get<double>(), 1e-12,
                   1e-10);
    report.compare(key + ": min", wide.min().item<double>(), item.at("min").get<double>(), 0, 0);
    report.compare(key + ": max", wide.max().item<double>(), item.at("max").get<double>(), 0, 0);
    const auto first = item.at("first").get<std::vector<double>>();
    for (size_t k = 0; k < first.size(); ++k) {
      report.compare(concat(key, "[", k, "]"), wide[static_cast<int64_t>(k)].item<double>(), first[k], 0, 0);
    }
    report.compare(key + ": last", wide[-1].item<double>(), item.at("last").get<double>(), 0, 0);
  }
  const auto after = expected.at("randn_after_build").get<std::vector<double>>();
  const at::Tensor drawn = at::randn({static_cast<int64_t>(after.size())}, generator, at::kFloat);
  for (size_t k = 0; k < after.size(); ++k) {
    report.compare("normal drawn afterwards", drawn[static_cast<int64_t>(k)].item<double>(), after[k], 0, 1e-7);
  }
}

}  // namespace mdm::golden
