#include "mdm/pipeline/sample_job.h"

#include <algorithm>
#include <cstdio>
#include <random>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/progress.h"
#include "mdm/pipeline.h"
#include "pipeline/device.h"
#include "pipeline/loaded_checkpoint.h"
#include "pipeline/prompts.h"
#include "pipeline/sample_output.h"
#include "pipeline/settings.h"

namespace mdm {
namespace {

constexpr int kCancelledExitCode = 130;

// The setting's own name in a flag: "sample.negative-prompt" -> "negative_prompt".
std::string leaf_name(const std::string& flag) {
  std::string name = flag.substr(flag.rfind('.') + 1);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// Of settings that belong together, a flag for one says all: the picture's are not taken then.
void drop_what_flags_say(Overrides& restored, const Overrides& flags) {
  const std::vector<std::vector<std::string>> groups = {
      {"prompt", "prompts_file", "test_file_list"},  // prompts would add up
      {"negative_prompt"},
      {"sampler", "ddim_eta"},
      {"guidance_start", "guidance_end"}};
  for (const auto& names : groups) {
    const auto belongs = [&](const auto& item) {
      return std::find(names.begin(), names.end(), leaf_name(item.first)) != names.end();
    };
    if (std::none_of(flags.begin(), flags.end(), belongs)) continue;
    restored.erase(std::remove_if(restored.begin(), restored.end(), belongs), restored.end());
  }
}

// The settings in a PNG of ours that count, as overrides below the flags.
Overrides settings_of_image(const ParsedCommandLine& command_line) {
  const SampleConfig given = command_line.preliminary().config.sample;
  if (given.from_image.empty()) return {};
  Overrides restored = settings_from_png(given.from_image);
  const bool from_picture =
      std::any_of(restored.begin(), restored.end(), [](const auto& item) { return item.first == "strength"; });
  if (from_picture && given.init_image.empty()) {
    log_warning(printable(given.from_image), " was itself made from a picture; give that with --init-image");
  }
  drop_what_flags_say(restored, command_line.overrides);
  return restored;
}

// Settings out of a picture came in as flags; they are shown as the picture's unless such a flag was given, too.
void name_origins(LoadedConfig& loaded, const Overrides& restored, const Overrides& flags) {
  for (const auto& item : restored) {
    const auto same_name = [&](const auto& flag) { return flag.first == item.first; };
    if (std::any_of(flags.begin(), flags.end(), same_name)) continue;
    for (auto& [path, origin] : loaded.origins) {
      if (origin == "flag --" + item.first) origin = printable(loaded.config.sample.from_image);
    }
  }
}

// What a run goes by: defaults < the checkpoint's config < files < settings of a picture < flags. Without a
// checkpoint it stays partial.
LoadedConfig config_of_run(const ParsedCommandLine& original) {
  const Overrides restored = settings_of_image(original);
  ParsedCommandLine command_line = original;
  command_line.overrides.insert(command_line.overrides.begin(), restored.begin(), restored.end());
  LoadedConfig loaded = command_line.preliminary();
  const std::string checkpoint = loaded.config.sample.checkpoint;
  if (!checkpoint.empty()) {
    const std::string inside = config_json_of(TensorFile::open(checkpoint));
    if (inside.empty() && command_line.config_files.empty()) {
      fail<ConfigError>(printable(checkpoint), ": holds no config; give --config_path FILE");
    }
    loaded = command_line.load(inside);
  }
  name_origins(loaded, restored, original.overrides);
  return loaded;
}

uint64_t chosen_seed(int64_t wanted) {
  if (wanted >= 0) return static_cast<uint64_t>(wanted);
  std::random_device device;
  return device() & 0x7FFFFFFFU;  // fits every tool that reads the number back
}

}  // namespace

AppInfo sample_app_info() {
  AppInfo info;
  info.name = "sample";
  info.summary = "Makes pictures from prompts with a Matryoshka diffusion model.";
  info.sections =
      Section::kModel | Section::kDiffusion | Section::kReader | Section::kText | Section::kSample | Section::kRuntime;
  info.use = ConfigUse::kSample;
  info.resolve = config_of_run;
  info.examples =
      "  sample --checkpoint vis_model_64x64.pth --config_path configs/models/cc12m_64x64.yaml \\\n"
      "         --prompt \"a fox in the snow\" --guidance-scale 7.5 --num-inference-steps 250\n"
      "  sample --checkpoint vis_model_64x64.pth --from-image samples/sample_000000.png --seed 7\n";
  return info;
}

int run_sample(const ParsedCommandLine& command_line, const std::atomic<bool>& cancel) {
  const LoadedConfig loaded = config_of_run(command_line);
  if (loaded.config.sample.checkpoint.empty()) {
    fail<ConfigError>("checkpoint: no file of weights; give --checkpoint FILE");
  }
  for (const std::string& warning : loaded.warnings) log_warning(warning);
  apply_runtime(loaded.config.runtime);

  const SampleConfig sample = loaded.config.sample;
  const std::vector<PictureRequest> requests = picture_requests(sample, chosen_seed(sample.seed));
  SampleOutput output(loaded.config, sample, std::filesystem::path(sample.checkpoint).filename().string());
  Pipeline pipeline(loaded.config);
  if (sample.seed < 0) log_info("seed: ", requests.front().seed);

  int64_t done_before = 0;
  std::unique_ptr<Progress> progress;
  GenerationCallbacks callbacks;
  callbacks.cancel = &cancel;
  callbacks.on_step = [&](const GenerationStep& step) {
    output.add_frames(step);
    if (!progress) {
      const auto size = static_cast<size_t>(sample.batch_size);
      const auto batches = static_cast<int64_t>((requests.size() + size - 1) / size);
      ProgressOptions options;
      options.label = "denoising";
      options.unit = "step";
      options.total = static_cast<uint64_t>(batches * step.steps);
      progress = std::make_unique<Progress>(std::move(options));
    }
    progress->set(static_cast<uint64_t>(done_before + step.step));
    if (step.step == step.steps) done_before += step.steps;
  };
  callbacks.on_pictures = [&](std::vector<Picture> pictures) { output.add(pictures); };
  try {
    pipeline.generate(requests, sample, callbacks);
  } catch (...) {
    try {
      output.finish();  // what was written is listed, whatever came after it
    } catch (const Error& error) {
      log_error(error.what());  // the first failure is the one to report
    }
    throw;
  }
  if (progress) progress->finish();
  output.finish();
  std::printf("%zu of %zu pictures in %s\n", output.count(), requests.size(), output.folder().string().c_str());
  return cancel.load() ? kCancelledExitCode : 0;
}

}  // namespace mdm
