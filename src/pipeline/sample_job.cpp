#include "mdm/pipeline/sample_job.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <random>
#include <sstream>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/progress.h"
#include "mdm/distributed/process_group.h"
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
  info.sections = Section::kModel | Section::kDiffusion | Section::kReader | Section::kText | Section::kSample |
                  Section::kRuntime | Section::kDistributed;
  info.use = ConfigUse::kSample;
  info.resolve = config_of_run;
  info.examples =
      "  sample --checkpoint vis_model_64x64.pth --config_path configs/models/cc12m_64x64.yaml \\\n"
      "         --prompt \"a fox in the snow\" --guidance-scale 7.5 --num-inference-steps 250\n"
      "  sample --checkpoint vis_model_64x64.pth --from-image samples/sample_000000.png --seed 7\n";
  return info;
}

namespace {

// What one process makes of the pictures of all: whole batches in turn, so that each picture has the neighbours in its
// batch that it has in a single process, and the same bits.
struct Share {
  std::vector<PictureRequest> requests;
  std::vector<size_t> numbers;  // of these, in the whole
};

Share share_of(const std::vector<PictureRequest>& all, int64_t batch_size, const ProcessGroup& group) {
  Share share;
  for (size_t i = 0; i < all.size(); ++i) {
    if (static_cast<int64_t>(i) / batch_size % group.size() != group.rank()) continue;
    share.requests.push_back(all[i]);
    share.numbers.push_back(i);
  }
  return share;
}

void draw(const Config& config, const Share& share, SampleOutput& output, bool show, const std::atomic<bool>& cancel) {
  if (share.requests.empty()) return;
  Pipeline pipeline(config);
  int64_t done_before = 0;
  std::unique_ptr<Progress> progress;
  GenerationCallbacks callbacks;
  callbacks.cancel = &cancel;
  callbacks.on_step = [&](const GenerationStep& step) {
    output.add_frames(step);
    if (!show) return;
    if (!progress) {
      const auto size = static_cast<size_t>(config.sample.batch_size);
      const auto batches = static_cast<int64_t>((share.requests.size() + size - 1) / size);
      ProgressOptions options;
      options.label = "denoising";
      options.unit = "step";
      options.total = static_cast<uint64_t>(batches * step.steps);
      options.initial = static_cast<uint64_t>(step.step);  // made before the clock starts: not in the rate
      progress = std::make_unique<Progress>(std::move(options));
    }
    progress->set(static_cast<uint64_t>(done_before + step.step));
    if (step.step == step.steps) done_before += step.steps;
  };
  callbacks.on_pictures = [&](std::vector<Picture> pictures) { output.add(pictures); };
  pipeline.generate(share.requests, config.sample, callbacks);
  if (progress) progress->finish();
}

// Waits for the others, and adds what they have made to rank 0's output. Throws when one of them has failed.
void collect(ProcessGroup& group, const std::vector<PictureRequest>& requests, bool failed, SampleOutput& output) {
  group.wait_for_others("the end of sampling");
  std::string own = failed ? "-" : "+";
  for (const size_t number : output.numbers()) own += concat(" ", number);
  const std::vector<std::string> all = group.gather(own, "list of pictures");
  std::string others;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (static_cast<int64_t>(rank) == group.rank()) continue;
    if (all[rank].empty() || all[rank][0] != '+') others += concat(others.empty() ? "" : ", ", rank);
    if (group.rank() != 0 || all[rank].empty()) continue;
    std::istringstream numbers(all[rank].substr(1));
    for (size_t number = 0; numbers >> number;) output.add_of_others(number, requests.at(number).prompt);
  }
  if (!others.empty()) fail<DistributedError>("sampling has failed in other processes: rank ", others);
}

}  // namespace

int run_sample(const ParsedCommandLine& command_line, const std::atomic<bool>& cancel,
               const std::function<void(const std::string&)>& on_stuck) {
  LoadedConfig loaded = config_of_run(command_line);
  Config& config = loaded.config;
  if (config.sample.checkpoint.empty()) fail<ConfigError>("checkpoint: no file of weights; give --checkpoint FILE");
  const Launch launch = detect_launch(config.distributed, process_environment());
  apply_runtime(config.runtime, launch);
  if (launch.rank == 0) {
    for (const std::string& warning : loaded.warnings) log_warning(warning);
  }
  config.runtime.device = resolve_device(config.runtime.device, launch.local_rank).str();
  ProcessGroup::Options options;
  options.device.reset();
  options.on_stuck = on_stuck;
  const auto group = ProcessGroup::join(launch, config.distributed, options);

  const uint64_t seed = std::stoull(group->from_first(concat(chosen_seed(config.sample.seed)), "choice of the seed"));
  const std::vector<PictureRequest> requests = picture_requests(config.sample, seed);
  const Share share = share_of(requests, config.sample.batch_size, *group);
  SampleOutput output(config, config.sample, std::filesystem::path(config.sample.checkpoint).filename().string(),
                      share.numbers);
  if (config.sample.seed < 0) log_info("seed: ", seed);
  std::exception_ptr trouble;
  try {
    draw(config, share, output, group->rank() == 0, cancel);
  } catch (const std::exception&) {
    trouble = std::current_exception();
  }
  try {
    collect(*group, requests, trouble != nullptr, output);
  } catch (const std::exception&) {
    if (!trouble) trouble = std::current_exception();
  }
  if (group->rank() == 0) {
    try {
      output.finish();  // what was written is listed, whatever came after it
    } catch (const Error& error) {
      if (!trouble) throw;
      log_error(error.what());  // the first failure is the one to report
    }
  }
  if (trouble) std::rethrow_exception(trouble);
  if (group->rank() == 0) {
    std::printf("%zu of %zu pictures in %s\n", output.count(), requests.size(), output.folder().string().c_str());
  }
  return cancel.load() ? kCancelledExitCode : 0;
}

}  // namespace mdm
