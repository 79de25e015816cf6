#include "mdm/training/train_job.h"

#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>
#include <torch/version.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/media/png.h"
#include "mdm/text/other_encoders.h"
#include "mdm/text/text_model.h"
#include "mdm/training/data_sources.h"
#include "mdm/training/metrics.h"
#include "mdm/training/starting_point.h"
#include "mdm/training/trainer.h"
#include "pipeline/device.h"
#include "training/checkpoint_content.h"
#include "training/config_change.h"
#include "training/sample_grid.h"
#include "training/shared_checkpoint.h"
#include "training/step_display.h"
#include "training/validation.h"

namespace mdm {
namespace {

uint64_t chosen_train_seed(int64_t wanted) {
  if (wanted >= 0) return static_cast<uint64_t>(wanted);
  std::random_device device;
  return device() & 0x7FFFFFFFU;  // fits every tool that reads the number back
}

// Files, flags, and where no file is given the config that the run has been started with.
LoadedConfig config_of_training(const ParsedCommandLine& command_line, const std::optional<SavedCheckpoint>& saved) {
  if (!saved) return command_line.load();
  return command_line.load(command_line.config_files.empty() ? config_of_state(saved->state_json) : "", true);
}

RunDirectory::Options kept_checkpoints(const TrainerConfig& trainer) { return {trainer.keep_last, trainer.keep_every}; }

// What would else be found only after text encoder and data have been read.
void check_training_config(const LoadedConfig& loaded) {
  if (loaded.origins.count("trainer.file_list") == 0) {
    fail<ConfigError>(
        "file_list: no training data; give --file-list LIST (a TSV, a webdataset tar, or a folder of them)");
  }
  if (loaded.config.reader.image_size < 1) {
    fail<ConfigError>("reader_config.image_size: must be set for training, to the side of the pictures in pixels");
  }
}

void refuse_changes(const Config& config, const SavedCheckpoint& saved) {
  const std::vector<std::string> changes = config_changes(config_of_state(saved.state_json), config);
  if (config.trainer.seed >= 0 && static_cast<uint64_t>(config.trainer.seed) != seed_of_state(saved.state_json)) {
    fail<ConfigError>("seed: ", config.trainer.seed, " is not that of the run (", seed_of_state(saved.state_json),
                      "), which can't change");
  }
  if (changes.empty()) return;
  std::string list;
  for (const std::string& change : changes) list += "\n  " + change;
  if (!config.trainer.allow_config_change) {
    fail<ConfigError>(printable(saved.folder.string(), 1000),
                      ": the settings have changed since this checkpoint:", list,
                      "\n  Say --allow-config-change to go on with the new ones, or choose another output_dir");
  }
  log_warning("settings have changed since the checkpoint:", list);
}

// The tokenizer that the captions of a data set are counted with; nullptr where captions are no token lists.
std::unique_ptr<Tokenizer> counting_tokenizer(const TextConfig& text) {
  if (text.kind == TextKind::kClass || text.kind == TextKind::kPrecomputed) return nullptr;
  const bool own = text.kind == TextKind::kJoint || !text.vocab_file.empty();
  return make_tokenizer(text, own ? std::filesystem::path() : resolve_text_model(text.text_model));
}

// One run of train_parallel.
class TrainJob {
 public:
  // `run`: rank 0's; the others have none.
  TrainJob(const Config& config, ProcessGroup& group, at::Device device, RunDirectory* run,
           const std::optional<SavedCheckpoint>& saved, const std::atomic<bool>& stop,
           std::unique_ptr<PictureScorer> scorer);
  int run();

 private:
  void compare_with_first();
  void report_memory() const;
  void open_training_set();
  void open_validation_set();
  bool takes(const TrainingData& shown, size_t sample) const;
  void choose_grid(const TrainingData& shown);
  void choose_scored(const TrainingData& shown);
  void open_metrics(uint64_t first_step);
  void look_after(const StepReport& report);
  void write_scalars(const StepReport& report);
  void write_samples(uint64_t step);
  void write_validation(uint64_t step);
  void write_scores(uint64_t step);
  void report_broken_samples() const;

  Config config_;
  ProcessGroup& group_;
  at::Device device_;
  RunDirectory* run_;
  const std::atomic<bool>& stop_;
  std::unique_ptr<PictureScorer> scorer_;  // or null
  uint64_t seed_;
  std::unique_ptr<TextEncoder> encoder_;
  std::unique_ptr<Tokenizer> tokenizer_;  // counts the tokens of captions
  std::unique_ptr<EncoderText> text_;
  std::shared_ptr<UNet> model_;
  TrainingData training_set_;
  std::unique_ptr<LoaderBatches> batches_, validation_;
  int64_t validation_batches_ = 0;
  GridSetup grid_, scored_;  // the latter: what scorer_ looks at
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<MetricsWriter> metrics_;              // rank 0's
  uint64_t last_step_ = 0;                              // that was reported
  double images_ = 0, seconds_ = 0, data_seconds_ = 0;  // since the last scalars
};

TrainJob::TrainJob(const Config& config, ProcessGroup& group, at::Device device, RunDirectory* run,
                   const std::optional<SavedCheckpoint>& saved, const std::atomic<bool>& stop,
                   std::unique_ptr<PictureScorer> scorer)
    : config_(config),
      group_(group),
      device_(device),
      run_(run),
      stop_(stop),
      scorer_(std::move(scorer)),
      seed_(saved
                ? seed_of_state(saved->state_json)
                : std::stoull(group.from_first(concat(chosen_train_seed(config.trainer.seed)), "choice of the seed"))) {
  log_info("seed: ", seed_);
  TextEncoderOptions options;
  options.device = config_.text.kind == TextKind::kJoint ? at::Device(at::kCPU) : device_;
  options.training = true;
  encoder_ = make_text_encoder(config_.text, config_.reader, options);
  tokenizer_ = counting_tokenizer(config_.text);
  text_ = std::make_unique<EncoderText>(*encoder_, config_);
  model_ = make_model(config_.model, encoder_->width(), {at::kFloat, /*channels_last=*/true});
  if (!saved) set_starting_point(config_, seed_, *model_, encoder_.get());
  open_training_set();
  open_validation_set();

  TrainerParts parts;
  parts.model = model_.get();
  parts.data = batches_.get();
  parts.text = text_.get();
  parts.group = &group_;
  parts.run = run_;
  parts.device = device_;
  parts.stop = &stop;
  parts.last_step = training_set_.plan->first_step(static_cast<uint64_t>(config_.trainer.num_epochs));
  parts.on_step = [this](const StepReport& report) { look_after(report); };
  trainer_ = std::make_unique<Trainer>(config_, seed_, parts);
  if (saved) {
    trainer_->resume(*saved);
    log_info("goes on at step ", trainer_->state().step, " from ", printable(saved->folder.string(), 1000));
  }
  compare_with_first();
  report_memory();
  if (run_ == nullptr) return;
  open_metrics(trainer_->state().step + 1);
  const std::string yaml = dump_yaml(config_);
  write_file(run_->folder() / "config.yaml", yaml);
  metrics_->text(static_cast<int64_t>(trainer_->state().step), "config", "```yaml\n" + yaml + "```");
  const TrainerConfig& t = config_.trainer;
  metrics_->hparams({{"lr", t.lr},
                     {"batch_size", static_cast<double>(training_set_.plan->rows())},
                     {"warmup_steps", static_cast<double>(t.warmup_steps)},
                     {"ema_decay", t.ema_decay},
                     {"weight_decay", t.weight_decay},
                     {"precision", choice_name(config_.runtime.precision)},
                     {"parameters", static_cast<double>(trainer_->arena().numbers())}},
                    {"loss", "validation/loss"});
}

// What would else be found out from the loss, or never: weights, data and vocabulary are the same everywhere.
void TrainJob::compare_with_first() {
  char norm[40];
  std::snprintf(norm, sizeof norm, "%a", trainer_->arena().weight_norm());
  const nlohmann::ordered_json data = nlohmann::ordered_json::parse(batches_->state_json());
  const std::vector<std::pair<const char*, std::string>> facts = {
      {"LibTorch", TORCH_VERSION},
      {"the number of trained parameters", concat(trainer_->arena().trained_numbers())},
      {"the norm of the weights", norm},
      {"the training data", concat(data.at("samples"), " samples, ", data.at("digest"))},
      {"the vocabulary", concat(std::hash<std::string>()(text_->vocabulary()))}};
  nlohmann::ordered_json own;
  for (const auto& [name, value] : facts) own[name] = value;
  const auto first = nlohmann::ordered_json::parse(group_.from_first(own.dump(), "comparison of the processes"));
  for (const auto& [name, value] : facts) {
    if (first.at(name) == value) continue;
    fail<DistributedError>("rank ", group_.rank(), " can't train with rank 0: ", name, " is ", value, " here and ",
                           printable(first.at(name).get<std::string>()), " there");
  }
}

// What training keeps per parameter; activations come on top.
void TrainJob::report_memory() const {
  const ParameterArena::Bytes bytes = trainer_->arena().bytes();
  const auto megabytes = [](uint64_t count) {
    char text[40];
    std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(count) / 1e6);
    return std::string(text);
  };
  log_info("state of the training: ", megabytes(bytes.all()), " in this process (weights ", megabytes(bytes.weights),
           ", gradients ", megabytes(bytes.gradients), ", moments ", megabytes(bytes.moments), ", averages ",
           megabytes(bytes.ema), ")", trainer_->arena().divided() ? ", divided among the processes" : "");
}

void TrainJob::open_training_set() {
  const TrainerConfig& t = config_.trainer;
  const int64_t rows = process_batch_size(t, group_.size()) * t.num_gradient_accumulations * group_.size();
  training_set_ = open_data(t.file_list, config_, tokenizer_.get(), seed_, rows, &stop_);
  LoaderOptions options = loader_options(config_, seed_, encoder_.get());
  options.slices = micro_steps(t, group_.rank(), group_.size());
  batches_ = std::make_unique<LoaderBatches>(training_set_, std::move(options), t.allow_config_change);
}

// Records of `first_step` and later, of an earlier start or of before a rollback, are taken back.
void TrainJob::open_metrics(uint64_t first_step) {
  MetricsOptions options;
  options.folder = run_->folder() / "train";
  options.first_step = static_cast<int64_t>(first_step);
  metrics_.reset();
  metrics_ = std::make_unique<MetricsWriter>(options);
}

// The same pictures in the same order each time, nothing about them left to chance.
void TrainJob::open_validation_set() {
  const TrainerConfig& t = config_.trainer;
  TrainingData data = training_set_;
  if (!t.validation_file_list.empty()) {
    Config fixed = config_;
    fixed.reader.shuffle = fixed.reader.random_crop = fixed.reader.random_flip = false;
    fixed.reader.caption_dropout = 0;
    fixed.reader.token_buckets.clear();
    fixed.reader.num_readers = 1;
    data = open_data(t.validation_file_list, fixed, tokenizer_.get(), 0, t.batch_size, &stop_);
    const auto samples = std::min<int64_t>(t.validation_samples, static_cast<int64_t>(data.plan->samples()));
    validation_batches_ = std::max<int64_t>(1, samples / t.batch_size);
    fixed.reader.reader_buffer_size = std::min(fixed.reader.reader_buffer_size, validation_batches_);
    validation_ = std::make_unique<LoaderBatches>(data, loader_options(fixed, 0, encoder_.get()));
  }
  choose_grid(data);
  choose_scored(data);
}

// Whether a sample's caption can be drawn.
bool TrainJob::takes(const TrainingData& shown, size_t sample) const {
  const auto* labels = dynamic_cast<const ClassLabelEncoder*>(encoder_.get());
  return shown.captions->kept(sample) &&
         (labels == nullptr || labels->knows(shown.captions->text(*shown.dataset, sample)));
}

void TrainJob::choose_grid(const TrainingData& shown) {
  const TrainerConfig& t = config_.trainer;
  grid_.prompts = t.sample_prompts;
  grid_.side = config_.reader.image_size;
  grid_.device = device_;
  grid_.stop = &stop_;
  grid_.draws = run_ != nullptr;
  if (t.sample_freq == 0) return;
  const bool embeddings = config_.text.kind == TextKind::kPrecomputed;
  if (grid_.prompts.empty() && embeddings) {
    log_warning("no grids of samples: with precomputed embeddings sample_prompts must name texts of text_model");
  }
  constexpr size_t kPrompts = 16;
  if (t.sample_prompts.empty() && !embeddings) {
    for (size_t i = 0; i < shown.dataset->size() && grid_.prompts.size() < kPrompts; ++i) {
      if (takes(shown, i)) grid_.prompts.emplace_back(shown.captions->text(*shown.dataset, i));
    }
  }
  // Classes and texts that there are not: found now, not at the first grid.
  if (config_.text.kind == TextKind::kClass || embeddings) encoder_->encode(grid_.prompts, config_.text.pad);
}

// The captions of the first samples, as many as there are pictures, or all of them again and again.
void TrainJob::choose_scored(const TrainingData& shown) {
  if (!scorer_) return;
  if (config_.text.kind == TextKind::kPrecomputed) {
    fail<ConfigError>("eval_freq: pictures can't be drawn for precomputed embeddings");
  }
  scored_ = grid_;
  scored_.prompts.clear();
  for (size_t i = 0; i < shown.dataset->size(); ++i) {
    if (scored_.prompts.size() >= static_cast<size_t>(scorer_->pictures())) break;
    if (takes(shown, i)) scored_.prompts.emplace_back(shown.captions->text(*shown.dataset, i));
  }
  if (scored_.prompts.empty()) fail<ConfigError>("eval_freq: no caption of the data can be drawn");
}

// What goes wrong here must not end days of training.
void TrainJob::look_after(const StepReport& report) {
  const TrainerConfig& t = config_.trainer;
  if (report.step <= last_step_ && run_ != nullptr) open_metrics(report.step);  // training went back
  last_step_ = report.step;
  images_ += static_cast<double>(report.images);
  seconds_ += report.seconds;
  data_seconds_ += report.data_seconds;
  const auto due = [&](int64_t every) { return every > 0 && report.step % static_cast<uint64_t>(every) == 0; };
  try {
    if (run_ != nullptr && (due(t.log_freq) || report.step == 1)) write_scalars(report);
    if (validation_ && due(t.validation_freq) && !report.stop) write_validation(report.step);
    if (due(t.sample_freq) && !report.stop) write_samples(report.step);
    if (scorer_ && due(scorer_->every()) && !report.stop) write_scores(report.step);
  } catch (const DistributedError&) {
    throw;
  } catch (const std::exception& error) {
    log_error("step ", report.step, ": no validation or no samples: ", error.what(), ". Training goes on");
  }
}

void TrainJob::write_scalars(const StepReport& report) {
  const TrainingState& state = trainer_->state();
  std::vector<std::pair<std::string, double>> values = {
      {"loss", report.loss},
      {"average_loss", state.average_loss},
      {"lr", report.lr},
      {"gradient_norm", report.gradient_norm},
      {"images_per_second", images_ / seconds_},
      {"data_wait", data_seconds_ / seconds_},
      {"memory_gib", static_cast<double>(resident_bytes()) / static_cast<double>(uint64_t{1} << 30)},
      {"samples", static_cast<double>(state.samples)},
      {"skipped_steps", static_cast<double>(state.skipped)}};
  for (const auto& [kind, count] : batches_->counters().holes) {
    values.emplace_back("bad/" + kind, static_cast<double>(count));
  }
  metrics_->scalars(static_cast<int64_t>(report.step), values);
  images_ = seconds_ = data_seconds_ = 0;
}

void TrainJob::write_samples(uint64_t step) {
  if (grid_.prompts.empty()) return;
  const std::optional<Image> sheet = draw_grid(config_, grid_, *model_, trainer_->arena(), encoder_.get());
  if (!sheet || run_ == nullptr) return;
  metrics_->image(static_cast<int64_t>(step), "samples", *sheet);
  const auto folder = run_->folder() / "samples";
  make_writable_folder(folder);
  char name[40];
  std::snprintf(name, sizeof name, "step_%07llu.png", static_cast<unsigned long long>(step));
  write_png(folder / name, *sheet);
}

// Whole batches in turn, so that each picture is the one of a single process.
void TrainJob::write_scores(uint64_t step) {
  std::vector<size_t> numbers;
  for (int64_t i = 0; i < scorer_->pictures(); ++i) {
    if (i / config_.trainer.batch_size % group_.size() == group_.rank()) numbers.push_back(static_cast<size_t>(i));
  }
  scorer_->begin(numbers);
  const bool whole =
      draw_pictures(config_, scored_, numbers, *model_, trainer_->arena(), encoder_.get(),
                    [&](size_t first, const std::vector<Image>& pictures, const std::vector<std::string>& prompts) {
                      scorer_->add(first, pictures, prompts);
                    });
  const std::vector<std::string> others = group_.gather(whole ? "whole" : "stopped", "drawing of scored pictures");
  if (std::find(others.begin(), others.end(), "stopped") != others.end()) return;
  std::vector<std::pair<std::string, double>> values;
  std::string text;
  for (const auto& [name, value] : scorer_->finish()) {
    values.emplace_back("eval/" + name, value);
    text += concat(text.empty() ? "" : ", ", name, " ", value);
  }
  if (run_ == nullptr) return;
  metrics_->scalars(static_cast<int64_t>(step), values);
  log_info("step ", step, ": ", scorer_->pictures(), " drawn pictures: ", text);
}

void TrainJob::write_validation(uint64_t step) {
  validation_->rewind();
  const std::optional<ValidationLoss> loss = validate(config_, validation_batches_, *model_, trainer_->arena(),
                                                      *validation_, text_.get(), device_, group_, &stop_);
  validation_->rewind();  // nothing is kept in memory until the next time
  if (!loss || run_ == nullptr) return;
  std::vector<std::pair<std::string, double>> values = {{"validation/loss", loss->mean}};
  std::string by_time;
  for (size_t q = 0; q < loss->quartiles.size(); ++q) {
    if (!loss->quartiles[q]) continue;
    values.emplace_back(concat("validation/quartile_", q + 1), *loss->quartiles[q]);
    by_time += concat(by_time.empty() ? "" : ", ", *loss->quartiles[q]);
  }
  metrics_->scalars(static_cast<int64_t>(step), values);
  log_info("step ", step, ": validation loss ", loss->mean, " (by time: ", by_time, ")");
}

void TrainJob::report_broken_samples() const {
  const LoaderCounters& counters = batches_->counters();
  if (counters.all_holes() == 0) return;
  std::string kinds;
  for (const auto& [kind, count] : counters.holes) kinds += concat(kinds.empty() ? "" : ", ", kind, " ", count);
  log_warning(counters.all_holes(), " of ", counters.samples, " samples could not be used (", kinds, ")");
}

int TrainJob::run() {
  const TrainingEnd end = trainer_->run();
  if (metrics_) metrics_->flush();
  report_broken_samples();
  if (run_ == nullptr) return end == TrainingEnd::kFinished ? 0 : kStoppedExitCode;
  const TrainingState& state = trainer_->state();
  std::printf("%s at step %llu in %s\n", end == TrainingEnd::kFinished ? "finished" : "stopped",
              static_cast<unsigned long long>(state.step), run_->folder().string().c_str());
  return end == TrainingEnd::kFinished ? 0 : kStoppedExitCode;
}

}  // namespace

AppInfo train_app_info() {
  AppInfo info;
  info.name = "train_parallel";
  info.summary = "Trains a Matryoshka diffusion model on captioned images.";
  info.sections = Section::kModel | Section::kDiffusion | Section::kReader | Section::kText | Section::kTrainer |
                  Section::kRuntime | Section::kDistributed;
  info.use = ConfigUse::kTrain;
  info.resolve = [](const ParsedCommandLine& command_line) {
    return config_of_training(command_line, RunDirectory::peek(command_line.preliminary().config.trainer.output_dir));
  };
  info.examples =
      "  train_parallel --config_path configs/models/cc12m_64x64.yaml --file-list training.tsv --output-dir run\n"
      "  train_parallel --output-dir run     (goes on from the last checkpoint in run)\n";
  return info;
}

namespace {

// The same settings everywhere, but for those that are each process's own.
void compare_settings(ProcessGroup& group, const Config& config) {
  const std::string first = group.from_first(config_to_json(config), "comparison of the settings");
  if (group.rank() == 0) return;
  std::string list;
  for (const std::string& difference : process_differences(first, config)) list += "\n  " + difference;
  if (!list.empty()) fail<ConfigError>("rank ", group.rank(), " has other settings than rank 0:", list);
}

int train_in_group(const ParsedCommandLine& command_line, const Launch& launch, at::Device device, ProcessGroup& group,
                   const std::atomic<bool>& stop, const MakePictureScorer& make_scorer) {
  const TrainerConfig early = command_line.preliminary().config.trainer;
  std::optional<RunDirectory> own;
  group.first_does(
      [&] {
        own.emplace(early.output_dir, kept_checkpoints(early));
        return std::string();
      },
      "opening of output_dir");
  RunDirectory* run = own ? &*own : nullptr;
  const std::optional<SavedCheckpoint> saved = shared_latest(run, group);
  const LoadedConfig loaded = config_of_training(command_line, saved);
  if (run != nullptr) {
    for (const std::string& warning : loaded.warnings) log_warning(warning);
  }
  check_training_config(loaded);
  if (run != nullptr) run->keep(kept_checkpoints(loaded.config.trainer));
  apply_runtime(loaded.config.runtime, launch);
  compare_settings(group, loaded.config);
  if (saved) refuse_changes(loaded.config, *saved);
  auto scorer = make_scorer ? make_scorer(loaded.config.trainer, group) : nullptr;
  return TrainJob(loaded.config, group, device, run, saved, stop, std::move(scorer)).run();
}

}  // namespace

int run_train(const ParsedCommandLine& command_line, const std::atomic<bool>& stop,
              const std::function<void(const std::string&)>& on_stuck, const MakePictureScorer& make_scorer) {
  const Config early = command_line.preliminary().config;
  if (early.trainer.output_dir.empty()) {
    fail<ConfigError>("output_dir: no folder for checkpoints; give --output-dir FOLDER");
  }
  const Launch launch = detect_launch(early.distributed, process_environment());
  apply_runtime(early.runtime, launch);
  const at::Device device = resolve_device(early.runtime.device, launch.local_rank);
  const c10::DeviceGuard on_device(device);
  const auto group = ProcessGroup::join(launch, early.distributed, {device, on_stuck});
  try {
    return train_in_group(command_line, launch, device, *group, stop, make_scorer);
  } catch (const std::exception& error) {
    group->leave(error.what());
    throw;
  }
}

}  // namespace mdm
