// Noise schedules, shifted levels, loss weights and timesteps.
#include <ATen/ATen.h>

#include <map>
#include <regex>

#include "golden_runner/diffusion_case.h"
#include "mdm/diffusion/schedule.h"

namespace mdm::golden {
namespace {

// Tolerances of the golden README.
constexpr double kUlp = 6e-8, kRelative64 = 1e-12, kRelativeWeights = 1e-4, kRelativeLogSnr = 1e-5;

void compare_schedule(const std::string& key, const SamplerConfig& config, const TensorFile& exact,
                      const TensorFile& rounded, Report& report) {
  report.compare(key + ".gammas64", at::tensor(schedule_gammas(config), at::kDouble), exact.tensor(key + ".gammas64"),
                 0, kRelative64);
  const Schedule schedule(config);
  report.compare(key + ".gammas", at::tensor(schedule.gammas()), rounded.tensor(key + ".gammas"), kUlp, 0);
  report.compare(key + ".vdm_loss_weights", at::tensor(schedule.loss_weights()),
                 rounded.tensor(key + ".vdm_loss_weights"), 0, kRelativeWeights);
  report.compare(key + ".logsnr", at::tensor(log_snr(schedule.gammas())), rounded.tensor(key + ".logsnr"),
                 kRelativeLogSnr, kRelativeLogSnr);
}

void compare_shifted(const std::map<std::string, SamplerConfig>& configs, const TensorFile& file, Report& report) {
  const std::regex level(R"((\w+\.\d+)\.power([\d.]+)\.scale(\d+)\.gammas)");
  const std::regex whole(R"(intended\.(\w+\.\d+)\.rescale([\d.]+)\.power([\d.]+)\.(gammas|vdm_loss_weights))");
  for (const TensorEntry& entry : file.entries()) {
    std::smatch match;
    const bool is_level = std::regex_match(entry.name, match, level);
    if (!is_level && !std::regex_match(entry.name, match, whole)) {
      report.fail(entry.name + " has a name that is not understood");
      continue;
    }
    const auto found = configs.find(match[1]);
    if (found == configs.end()) {
      report.fail(entry.name + " belongs to no schedule of case.json");
      continue;
    }
    SamplerConfig config = found->second;
    if (is_level) {
      config.schedule_shifted = true;
      config.schedule_shifted_power = std::stod(match[2]);
      const Schedule schedule(config, {std::stoll(match[3]), 1});
      report.compare(entry.name, at::tensor(schedule.gammas(0)), file.tensor(entry.name), kUlp, 0);
      continue;
    }
    config.rescale_schedule = std::stod(match[2]);
    config.schedule_shifted_power = std::stod(match[3]);
    const Schedule schedule(config);
    const bool weights = match[4] == "vdm_loss_weights";
    report.compare(entry.name, at::tensor(weights ? schedule.loss_weights() : schedule.gammas()),
                   file.tensor(entry.name), weights ? 0 : kUlp, weights ? kRelativeWeights : 0);
  }
}

}  // namespace

void check_schedules(const std::filesystem::path& path, const Context&, Report& report) {
  const nlohmann::json info = read_json(path / "case.json");
  const TensorFile exact = TensorFile::open(path / "gammas_float64.safetensors");
  const TensorFile rounded = TensorFile::open(path / "gammas_float32.safetensors");
  std::map<std::string, SamplerConfig> configs;
  for (nlohmann::json object : info.at("cases")) {
    const std::string key = object.at("key");
    object.erase("key");
    configs[key] = diffusion_config_of({{"sampler_config", object}}, "unet").sampler_config;
    compare_schedule(key, configs[key], exact, rounded, report);
  }
  compare_shifted(configs, TensorFile::open(path / "shifted_float32.safetensors"), report);

  Compat compat;
  compat.unclamped_steps = true;
  const nlohmann::json timesteps = read_json(path / "timesteps.json");
  for (const auto& [key, expected] : timesteps.at("timesteps").items()) {
    const size_t dot = key.find('.');
    const auto own = make_timesteps(std::stoll(key.substr(0, dot)), std::stoll(key.substr(dot + 1)),
                                    TimestepSpacing::kReference, compat);
    report.require(own == expected.get<std::vector<int64_t>>(), "timesteps " + key, "differ");
  }
}

}  // namespace mdm::golden
