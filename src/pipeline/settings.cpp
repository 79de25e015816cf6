#include "pipeline/settings.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/core/version.h"

namespace mdm {
namespace {

// What a picture may set when it is read back: an allow-list, because the file is anybody's.
constexpr const char* kRestorable[] = {
    "prompt",       "negative_prompt",     "seed",    "guidance_scale", "guidance_rescale", "guidance_start",
    "guidance_end", "num_inference_steps", "sampler", "ddim_eta",       "timestep_spacing", "threshold",
    "strength",     "sample_image_size",   "pad",     "precision"};

// One value of the JSON as the text of a flag; nothing when it is no plain value.
std::optional<std::string> flag_text(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  return std::nullopt;
}

}  // namespace

PngText settings_text(const Picture& picture, const SampleConfig& sample, const Config& config,
                      const std::string& checkpoint_name) {
  const ThresholdType threshold = sample.threshold.value_or(config.diffusion.sampler_config.threshold_function);
  nlohmann::ordered_json settings;
  settings["program"] = concat("libmdm ", version());
  settings["checkpoint"] = checkpoint_name;
  settings["model"] = config.model.kind();
  settings["prompt"] = picture.request.prompt;
  settings["negative_prompt"] = picture.request.negative_prompt;
  settings["seed"] = picture.request.seed;
  settings["guidance_scale"] = sample.guidance_scale;
  settings["guidance_rescale"] = sample.guidance_rescale;
  settings["guidance_start"] = sample.guidance_start;
  settings["guidance_end"] = sample.guidance_end;
  settings["num_inference_steps"] = sample.num_inference_steps;
  settings["sampler"] = choice_name(sample.sampler);
  if (sample.ddim_eta) settings["ddim_eta"] = *sample.ddim_eta;
  settings["timestep_spacing"] = choice_name(sample.timestep_spacing);
  settings["threshold"] = choice_name(threshold);
  if (!sample.init_image.empty()) settings["strength"] = sample.strength;
  settings["sample_image_size"] = picture.image.width;
  settings["pad"] = config.text.pad.text();
  settings["precision"] = choice_name(config.runtime.precision);

  std::ostringstream readable;
  readable << picture.request.prompt << "\n";
  if (!picture.request.negative_prompt.empty())
    readable << "Negative prompt: " << picture.request.negative_prompt << "\n";
  readable << "Steps: " << sample.num_inference_steps << ", Sampler: " << choice_name(sample.sampler)
           << ", CFG scale: " << sample.guidance_scale << ", Seed: " << picture.request.seed
           << ", Size: " << picture.image.width << "x" << picture.image.height << ", Model: " << checkpoint_name;
  if (sample.ddim_eta) readable << ", Eta: " << *sample.ddim_eta;
  readable << ", Version: libmdm " << version();
  const auto replace_invalid = nlohmann::json::error_handler_t::replace;
  return {{kPngParametersKey, readable.str()}, {kPngSettingsKey, settings.dump(-1, ' ', false, replace_invalid)}};
}

Overrides settings_from_png(const std::filesystem::path& png) {
  const PngText text = read_png_text(png);
  const std::string* found = find_png_text(text, kPngSettingsKey);
  if (found == nullptr) fail<DataError>(printable(png.string()), ": carries no settings of libmdm");
  const auto settings = nlohmann::json::parse(*found, nullptr, /*allow_exceptions=*/false);
  if (!settings.is_object()) fail<DataError>(printable(png.string()), ": its settings are no JSON object");
  Overrides overrides;
  for (const char* name : kRestorable) {
    const auto value = settings.find(name);
    if (value == settings.end()) continue;
    if (const auto flag = flag_text(*value)) overrides.emplace_back(name, *flag);
  }
  return overrides;
}

}  // namespace mdm
