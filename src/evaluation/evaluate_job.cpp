#include "mdm/evaluation/evaluate_job.h"

#include <ATen/Parallel.h>

#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>

#include "evaluation/evaluate_settings.h"
#include "evaluation/report.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/core/progress.h"
#include "mdm/core/random.h"
#include "mdm/distributed/process_group.h"
#include "mdm/pipeline.h"
#include "pipeline/device.h"
#include "pipeline/loaded_checkpoint.h"
#include "pipeline/prompts.h"

namespace mdm {
namespace {

using evaluation::EvaluateSettings;
using evaluation::ScoredSet;
using Json = nlohmann::ordered_json;

constexpr int kPartialExitCode = 4;
constexpr int kCancelledExitCode = 130;

// Defaults < the checkpoint's config < files < flags.
LoadedConfig config_of_run(const ParsedCommandLine& command_line) {
  const LoadedConfig early = command_line.preliminary();
  const std::string& checkpoint = early.config.sample.checkpoint;
  if (checkpoint.empty()) return early;
  const std::string inside = config_json_of(TensorFile::open(checkpoint));
  if (inside.empty() && command_line.config_files.empty()) {
    fail<ConfigError>(printable(checkpoint), ": holds no config; give --config_path FILE");
  }
  return command_line.load(inside);
}

// One run of `evaluate`.
class EvaluateJob {
 public:
  EvaluateJob(const Config& config, const EvaluateSettings& settings, ProcessGroup& group,
              const std::atomic<bool>& cancel)
      : config_(config),
        settings_(settings),
        group_(group),
        cancel_(cancel),
        threads_(at::get_num_threads()),
        seed_(static_cast<uint64_t>(std::max<int64_t>(0, config.sample.seed))),
        networks_(evaluation::load_networks(settings)) {}

  int run();

 private:
  std::vector<size_t> own_numbers(size_t count) const;
  std::unique_ptr<Progress> progress(const char* label, size_t total) const;
  std::unique_ptr<SetScores> score(const PictureSet& set, const ScoringNetworks& networks, bool captions,
                                   const char* label);
  std::unique_ptr<SetScores> score_generated();
  std::unique_ptr<SetScores> score_drawn();
  std::vector<PictureRequest> requests() const;
  void save(const std::string& file, const SetScores& scores) const;
  Json sampling_json() const;
  void report(const SetScores* generated, const SetScores* reference, const NamedStatistics& statistics);

  const Config& config_;
  const EvaluateSettings& settings_;
  ProcessGroup& group_;
  const std::atomic<bool>& cancel_;
  int threads_;
  uint64_t seed_;
  ScoringNetworks networks_;
  int64_t pictures_asked_ = 0;
};

std::vector<size_t> EvaluateJob::own_numbers(size_t count) const {
  std::vector<size_t> numbers;
  const auto step = static_cast<size_t>(group_.size());
  for (auto i = static_cast<size_t>(group_.rank()); i < count; i += step) numbers.push_back(i);
  return numbers;
}

std::unique_ptr<Progress> EvaluateJob::progress(const char* label, size_t total) const {
  if (group_.rank() != 0) return nullptr;
  ProgressOptions options;
  options.label = label;
  options.unit = "pictures";
  options.total = total;
  return std::make_unique<Progress>(std::move(options));
}

std::unique_ptr<SetScores> EvaluateJob::score(const PictureSet& set, const ScoringNetworks& networks, bool captions,
                                              const char* label) {
  const std::vector<size_t> numbers = own_numbers(set.size());
  SetScores::Options options;
  options.keep_features = settings_.metrics.kid || settings_.metrics.precision_recall;
  options.captions = captions;
  auto scores = std::make_unique<SetScores>(networks, numbers, options);
  const auto bar = progress(label, numbers.size());
  score_set(set, numbers, threads_, *scores, &cancel_, [&] {
    if (bar) bar->advance();
  });
  if (bar) bar->finish();
  scores->finish(group_);
  if (scores->count() == 0 && !cancel_) fail<DataError>("none of the ", set.size(), " pictures could be read");
  return scores;
}

std::unique_ptr<SetScores> EvaluateJob::score_generated() {
  PictureSet set = PictureSet::open(settings_.generated);
  if (!settings_.prompts.empty()) set.set_captions(read_prompts(settings_.prompts), settings_.prompts);
  if (settings_.metrics.clip && !set.has_captions()) {
    fail<DataError>(printable(settings_.generated, 1000),
                    ": has no captions for the CLIP score; name them with --prompts FILE, or give a lst.json");
  }
  return score(set, networks_, settings_.metrics.clip, "scoring");
}

// Captions in their order, again and again; or where there are more than pictures, so many of them drawn by the seed.
std::vector<PictureRequest> EvaluateJob::requests() const {
  std::vector<std::string> prompts = read_prompts(settings_.prompts);
  const size_t count = settings_.num_samples > 0 ? static_cast<size_t>(settings_.num_samples) : prompts.size();
  if (count < prompts.size()) {
    RandomAddress address;
    address.seed = seed_;
    address.stream = RandomStream::kShuffle;
    for (size_t i = 0; i < count; ++i) std::swap(prompts[i], prompts[i + random_below(address, i, prompts.size() - i)]);
  }
  const auto& negatives = config_.sample.negative_prompts;
  if (negatives.size() > 1) fail<ConfigError>("negative_prompt: give one for all pictures, or none");
  std::vector<PictureRequest> all(count);
  for (size_t i = 0; i < count; ++i) {
    all[i].prompt = prompts[i % prompts.size()];
    if (!negatives.empty()) all[i].negative_prompt = negatives[0];
    all[i].seed = seed_ + i;
  }
  return all;
}

// Whole batches in turn, as `sample` divides them, so that a picture has the same neighbours with any number of
// processes. Each batch is scored as it comes; no picture is kept.
std::unique_ptr<SetScores> EvaluateJob::score_drawn() {
  const std::vector<PictureRequest> all = requests();
  std::vector<PictureRequest> own;
  std::vector<size_t> numbers;
  for (size_t i = 0; i < all.size(); ++i) {
    if (static_cast<int64_t>(i) / config_.sample.batch_size % group_.size() != group_.rank()) continue;
    own.push_back(all[i]);
    numbers.push_back(i);
  }
  SetScores::Options options;
  options.keep_features = settings_.metrics.kid || settings_.metrics.precision_recall;
  options.captions = settings_.metrics.clip;
  auto scores = std::make_unique<SetScores>(networks_, numbers, options);
  if (!own.empty()) {
    Pipeline pipeline(config_);
    const auto bar = progress("drawing and scoring", own.size());
    GenerationCallbacks callbacks;
    callbacks.cancel = &cancel_;
    callbacks.on_pictures = [&](std::vector<Picture> pictures) {
      for_each_serially(pictures.size(), threads_, [&](size_t i) {
        scores->add(pictures[i].index, pictures[i].image, pictures[i].request.prompt);
        if (bar) bar->advance();
      });
    };
    pipeline.generate(own, config_.sample, callbacks);
    if (bar) bar->finish();
  }
  scores->finish(group_);
  return scores;
}

void EvaluateJob::save(const std::string& file, const SetScores& scores) const {
  NamedStatistics all;
  if (networks_.inception) all.emplace_back("", scores.inception());
  if (networks_.dinov2) all.emplace_back("fd_dinov2", scores.dinov2());
  if (all.empty())
    fail<ConfigError>(printable(file), ": there are no statistics to save without --inception or --dinov2");
  write_statistics(file, all);
}

Json EvaluateJob::sampling_json() const {
  const Json config = Json::parse(config_to_json(config_));
  Json sampling = {{"checkpoint", config_.sample.checkpoint},
                   {"sha256", digest_file(config_.sample.checkpoint).hex},
                   {"prompts", settings_.prompts},
                   {"prompts_sha256", digest_file(settings_.prompts).hex},
                   {"seed", seed_},
                   {"precision", choice_name(config_.runtime.precision)},
                   {"device", config_.runtime.device}};
  for (const char* section : {"sample", "diffusion_config", "diffusion"}) {
    if (config.contains(section)) sampling[section] = config[section];
  }
  return sampling;
}

void EvaluateJob::report(const SetScores* generated, const SetScores* reference, const NamedStatistics& statistics) {
  evaluation::Report report(settings_, networks_, seed_);
  report.json()["processes"] = group_.size();
  report.json()["threads"] = threads_;
  const bool drawn = !config_.sample.checkpoint.empty();
  if (drawn) report.json()["sampling"] = sampling_json();
  const ScoredSet other{settings_.reference, reference, reference == nullptr ? &statistics : nullptr};
  if (!settings_.save_reference.empty()) save(settings_.save_reference, *reference);
  if (generated != nullptr) {
    if (!settings_.save_generated.empty()) save(settings_.save_generated, *generated);
    report.compute({drawn ? config_.sample.checkpoint : settings_.generated, generated, nullptr},
                   settings_.reference.empty() ? nullptr : &other);
  } else {
    report.json()["reference"] = {
        {"source", settings_.reference}, {"pictures", reference->count()}, {"broken", reference->broken()}};
  }
  if (!settings_.output.empty()) write_file(settings_.output, report.json_text());
  std::printf("%s", report.table().c_str());
  if (!settings_.save_reference.empty())
    std::printf("statistics of %lld pictures in %s\n", static_cast<long long>(reference->count()),
                settings_.save_reference.c_str());
}

int EvaluateJob::run() {
  NamedStatistics statistics;
  std::unique_ptr<SetScores> reference, generated;
  const bool compares =
      !settings_.reference.empty() && (settings_.metrics.any_inception() || settings_.metrics.fd_dinov2);
  if (compares && evaluation::is_statistics_file(settings_.reference)) {
    statistics = read_statistics(settings_.reference);
  } else if (compares) {
    ScoringNetworks networks = networks_;
    networks.clip.reset();
    reference = score(PictureSet::open(settings_.reference), networks, false, "scoring the reference");
  }
  if (!config_.sample.checkpoint.empty()) {
    generated = score_drawn();
  } else if (!settings_.generated.empty()) {
    generated = score_generated();
  }
  if (cancel_) return kCancelledExitCode;
  group_.first_does(
      [&] {
        report(generated.get(), reference.get(), statistics);
        return std::string();
      },
      "report");
  const int64_t broken = (generated ? generated->broken() : 0) + (reference ? reference->broken() : 0);
  return broken > 0 ? kPartialExitCode : 0;
}

}  // namespace

AppInfo evaluate_app_info() {
  AppInfo info;
  info.name = "evaluate";
  info.summary =
      "Scores pictures, or the model that makes them: FID, KID, precision and recall, CLIP score, FD-DINOv2.";
  info.sections = Section::kModel | Section::kDiffusion | Section::kReader | Section::kText | Section::kSample |
                  Section::kRuntime | Section::kDistributed;
  info.use = ConfigUse::kSample;
  info.options = evaluation::evaluate_options();
  info.resolve = config_of_run;
  info.examples =
      "  evaluate --generated samples --reference photos --inception pt_inception-2015-12-05-6726825d.pth\n"
      "  evaluate --checkpoint vis_model_64x64.pth --prompts validation.tsv --num-samples 10000 --reference photos.npz "
      "\\\n"
      "           --inception pt_inception-2015-12-05-6726825d.pth --clip openai/clip-vit-base-patch16 --output "
      "scores.json\n"
      "  evaluate --reference photos --save-reference photos.npz --metrics fid --inception FILE\n";
  return info;
}

int run_evaluate(const ParsedCommandLine& command_line, const std::atomic<bool>& cancel,
                 const std::function<void(const std::string&)>& on_stuck) {
  LoadedConfig loaded = config_of_run(command_line);
  Config& config = loaded.config;
  const bool samples = !config.sample.checkpoint.empty();
  const EvaluateSettings settings = evaluation::evaluate_settings(command_line, samples);
  const Launch launch = detect_launch(config.distributed, process_environment());
  apply_runtime(config.runtime, launch);
  if (launch.rank == 0) {
    for (const std::string& warning : loaded.warnings) log_warning(warning);
  }
  if (samples) config.runtime.device = resolve_device(config.runtime.device, launch.local_rank).str();
  ProcessGroup::Options options;
  options.on_stuck = on_stuck;
  const auto group = ProcessGroup::join(launch, config.distributed, options);
  try {
    return EvaluateJob(config, settings, *group, cancel).run();
  } catch (const std::exception& error) {
    group->leave(error.what());
    throw;
  }
}

}  // namespace mdm
