#include "mdm/training/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/diffusion/loss.h"
#include "mdm/diffusion/noise.h"
#include "mdm/training/lr_schedule.h"
#include "ops/clip_factor.h"
#include "training/checkpoint_content.h"
#include "training/checkpoint_writer.h"
#include "training/gradient_exchange.h"
#include "training/late_numbers.h"
#include "training/model_parameters.h"
#include "training/shared_checkpoint.h"
#include "training/step_display.h"
#include "training/training_images.h"

namespace mdm {
namespace {

// Compat: the reference's noise has the memory layout of its pictures, colours last, and is drawn in that order.
at::Tensor reference_noise(int64_t batch, const std::vector<int64_t>& shape, const at::Generator& generator) {
  return at::empty({batch, shape[1], shape[2], shape[0]}, at::kFloat).permute({0, 3, 1, 2}).normal_(0, 1, generator);
}

std::vector<bool> recomputing_levels(const TrainerConfig& trainer, size_t levels) {
  const auto& chosen = trainer.gradient_checkpointing_levels;
  std::vector<bool> on(levels, trainer.gradient_checkpointing && chosen.empty());
  for (const int64_t level : chosen) {
    if (level < 0 || level >= static_cast<int64_t>(levels)) {
      fail<ConfigError>("gradient_checkpointing_levels: there is no level ", level, "; the model has ", levels,
                        ", counted from 0");
    }
    on[static_cast<size_t>(level)] = trainer.gradient_checkpointing;
  }
  return on;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Trainer::Impl {
  Impl(const Config& source, uint64_t seed, const TrainerParts& given)
      : config(source),
        parts(given),
        loss(source.diffusion, source.model, given.device, given.compat),
        arena(arena_parameters(*given.model, given.text, inner_predictions_count(source)),
              arena_options(source, given)),
        exchange(arena, group(), source.trainer.reduce_precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat),
        learning_rate(source.trainer, given.compat),
        writer(lasting(source), given.run, given.text != nullptr ? given.text->vocabulary() : std::string()) {
    state.seed = seed;
    parts.model->train();
    parts.model->set_gradient_checkpointing(recomputing_levels(source.trainer, parts.model->levels()));
    if (parts.compat.torch_noise) generator = make_generator(seed);
  }

  // What is kept with checkpoints: settings that are meant for one start are not.
  static Config lasting(Config config) {
    config.trainer.resume_from_ema = config.trainer.allow_config_change = false;
    return config;
  }
  static bool inner_predictions_count(const Config& config) { return config.diffusion.use_double_loss; }
  static ParameterArena::Options arena_options(const Config& config, const TrainerParts& parts) {
    ParameterArena::Options options;
    options.compute = config.runtime.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
    options.device = parts.device;
    options.bucket_numbers = std::max<int64_t>(static_cast<int64_t>(config.trainer.bucket_mb * 1e6) / 4, 1);
    if (config.trainer.shard_optimizer) options.divided_over = parts.group;
    return options;
  }

  // Sums of one step, over micro-steps and processes.
  struct Sums {
    enum Entry { kLoss, kWeight, kImages, kStop, kFailed, kEntries };  // the last two count processes
    at::Tensor values;                                                 // (kEntries) float64
    void count(Entry entry) { values.select(0, entry).add_(1); }
    // In all processes then, and no optimizer makes a step with such a weight.
    void spoil() { values.select(0, kWeight).fill_(std::numeric_limits<double>::quiet_NaN()); }
  };

  StepReport step();
  void collect(Sums& sums, StepReport& report);
  void accumulate(const Batch& batch, Sums& sums, StepReport& report);
  [[noreturn]] void end_together(const std::exception_ptr& own);
  TrainingInputs noisy_inputs(const Batch& batch);
  ops::AdamSettings update_settings() const;
  void count_update(StepReport& report, const ops::AdamSettings& settings, const std::vector<double>& totals);
  void roll_back();
  bool wanted(bool own);
  void save();
  void save_or_report();
  void save_before_end();
  std::exception_ptr save_at_end();
  void load(const SavedCheckpoint& checkpoint, bool from_ema);
  uint64_t last_step() const;
  TrainingEnd run();

  Config config;
  TrainerParts parts;
  ProcessGroup alone;
  DiffusionLoss loss;
  ParameterArena arena;
  GradientExchange exchange;
  LearningRate learning_rate;
  TrainingState state;
  std::optional<at::Generator> generator;  // compat
  CheckpointWriter writer;
  bool ended_together = false;  // a step has failed in one process before any of them updated anything

  ProcessGroup& group() { return parts.group != nullptr ? *parts.group : alone; }
};

TrainingInputs Trainer::Impl::noisy_inputs(const Batch& batch) {
  const at::Tensor images = training_images(batch.images, parts.device);
  const Schedule& schedule = loss.schedule();
  const TrainingDraw draw{state.seed, state.attempt, state.step};
  const at::Tensor times =
      generator ? at::randint(0, schedule.steps(), {batch.size()}, *generator, at::TensorOptions().dtype(at::kLong))
                : draw_times(draw, batch.samples, schedule.steps(), parts.device);
  std::vector<at::Tensor> noise;
  for (size_t level = 0; level < schedule.levels(); ++level) {
    const int64_t ratio = schedule.scales()[0] / schedule.scales()[level];
    const std::vector<int64_t> shape = {images.size(1), images.size(2) / ratio, images.size(3) / ratio};
    noise.push_back(generator ? reference_noise(batch.size(), shape, *generator)
                              : draw_noise(draw, batch.samples, level, shape, parts.device));
  }
  return loss.prepare(images, times, noise, {batch.first_row, batch.total_rows}, batch.weights);
}

// Forward and backward of one micro-step. Gradients add up in the arena, undivided: a loss is a pair of sum
// and weight, and what divides is the weight of the whole step.
void Trainer::Impl::accumulate(const Batch& batch, Sums& sums, StepReport& report) {
  const double start = now_seconds();
  const TrainingInputs inputs = noisy_inputs(batch);
  std::optional<TextEmbedding> text;
  if (parts.text != nullptr) text = parts.text->embed(batch);
  ops::DropoutSource dropout;
  dropout.address.seed = state.seed;
  dropout.address.attempt = state.attempt;
  dropout.address.step = state.step;
  dropout.samples = batch.samples;
  ForwardContext context;
  context.dropout = &dropout;
  const Conditioning conditioning = parts.model->condition(text ? &*text : nullptr, batch.micros, batch.size());
  const LossValue value = loss(inputs, parts.model->forward(inputs.x_t, inputs.times, conditioning, context));
  const double forward_done = now_seconds();
  report.forward_seconds += forward_done - start;
  // A slice of a mixed batch may have no row of any level that counts.
  if (value.sum.requires_grad()) (value.sum * config.trainer.loss_factor).backward();

  report.backward_seconds += now_seconds() - forward_done;

  const c10::NoGradGuard no_grad;
  const at::Tensor own =
      at::stack({value.sum.detach(), value.weight, (batch.weights > 0).sum().to(parts.device)}).to(at::kDouble);
  sums.values.narrow(0, Sums::kLoss, own.size(0)).add_(own);
  report.times.push_back(inputs.times);
  report.losses.push_back(value.per_example);
}

// All but the factor of the gradients.
ops::AdamSettings Trainer::Impl::update_settings() const {
  const TrainerConfig& trainer = config.trainer;
  ops::AdamSettings settings;
  settings.lr = learning_rate.at(state.updates);
  settings.beta1 = trainer.adam_beta1;
  settings.beta2 = trainer.adam_beta2;
  settings.eps = trainer.adam_eps;
  settings.weight_decay = trainer.use_adamw ? trainer.weight_decay : 0;
  settings.update = static_cast<int64_t>(state.updates) + 1;
  settings.ema_decay = ema_decay_at(trainer, state.updates, parts.compat);
  return settings;
}

// What the optimizer has done with these totals, the squares of the gradients behind them: it skips a step when
// anything is not finite.
void Trainer::Impl::count_update(StepReport& report, const ops::AdamSettings& settings,
                                 const std::vector<double>& totals) {
  const double squares = totals[Sums::kEntries], weight = totals[Sums::kWeight];
  if (weight == 0) return;  // all samples were holes
  report.gradient_norm = std::sqrt(squares) / weight;
  double factor = 0;
  if (!ops::clip_factor(squares, totals[Sums::kLoss], weight, config.trainer.gradient_clip_norm, factor)) {
    ++state.skipped;
    ++state.skipped_in_row;
    return;
  }
  report.lr = settings.lr;
  ++state.updates;
  state.skipped_in_row = 0;
  state.add_loss(report.loss);
  report.updated = true;
}

// All micro-steps of this process. Gradients of the last one go to the others while it still runs backward.
void Trainer::Impl::collect(Sums& sums, StepReport& report) {
  arena.zero_gradients();
  const int64_t micro_steps = config.trainer.num_gradient_accumulations;
  for (int64_t micro = 0; micro < micro_steps; ++micro) {
    const double asked = now_seconds();
    const Batch batch = parts.data->next();
    report.data_seconds += now_seconds() - asked;
    if (micro + 1 == micro_steps) exchange.begin();
    accumulate(batch, sums, report);
  }
}

// Each process says what went wrong in it, and throws: its own exception, or one that names those of the others.
void Trainer::Impl::end_together(const std::exception_ptr& own) {
  ended_together = true;
  std::string text;
  try {
    if (own) std::rethrow_exception(own);
  } catch (const std::exception& error) {
    text = concat(error.what(), " ");  // not empty: that would mean that nothing went wrong
  }
  const std::vector<std::string> all = group().gather(text, "what went wrong");
  if (own) std::rethrow_exception(own);
  std::string others;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (!all[rank].empty()) others += concat(others.empty() ? "" : "; ", "rank ", rank, ": ", all[rank]);
  }
  fail<DistributedError>("step ", state.step + 1, " has failed in another process: ", others);
}

StepReport Trainer::Impl::step() {
  const double start = now_seconds();
  StepReport report;
  group().set_place(concat("step ", state.step + 1));
  Sums sums{at::zeros({Sums::kEntries}, at::TensorOptions().dtype(at::kDouble).device(parts.device))};
  std::exception_ptr trouble;
  try {
    collect(sums, report);
  } catch (const DistributedError&) {
    throw;
  } catch (const std::exception&) {  // the others wait for this process's gradients all the same
    trouble = std::current_exception();
    sums.count(Sums::kFailed);
    sums.spoil();
  }
  if (parts.stop != nullptr && parts.stop->load()) sums.count(Sums::kStop);
  exchange.finish();
  group().sum(sums.values, "sum of losses");
  const double summed = now_seconds();
  // Queued before anybody waits: a GPU is at the optimizer's work while the next step is prepared.
  const at::Tensor squares = arena.gradient_squares();
  const LateNumbers late(at::cat({sums.values, squares}));
  const ops::AdamSettings settings = update_settings();
  const ops::DeviceClip clip = {squares, sums.values.narrow(0, Sums::kLoss, 1), sums.values.narrow(0, Sums::kWeight, 1),
                                config.trainer.gradient_clip_norm};
  arena.update(settings, &clip);
  const std::vector<double> totals = late.get();
  if (totals[Sums::kFailed] > 0) end_together(trouble);
  report.loss = totals[Sums::kLoss] / totals[Sums::kWeight];
  report.images = static_cast<int64_t>(totals[Sums::kImages]);
  report.stop = totals[Sums::kStop] > 0;
  count_update(report, settings, totals);
  report.update_seconds = now_seconds() - summed;
  state.samples += static_cast<uint64_t>(report.images);
  report.step = ++state.step;
  report.seconds = now_seconds() - start;
  return report;
}

// What rank 0, which writes, wants. Where all take part in a checkpoint they have to know.
bool Trainer::Impl::wanted(bool own) {
  if (!arena.divided()) return own;
  const at::Tensor votes = at::full({1}, own && group().rank() == 0 ? 1.0 : 0.0,
                                    at::TensorOptions().dtype(at::kDouble).device(parts.device));
  group().sum(votes, "whether to write a checkpoint");
  return votes.item<double>() > 0;
}

// Writes a checkpoint: at once where the weights lie in host memory (a second copy of them would be too much), in the
// background from a copy where they don't. A divided arena is collected by all processes.
void Trainer::Impl::save() {
  writer.wait_and_report();  // only then may it be asked what there is
  if (!wanted(!writer.has_all_of(state.step))) return;
  const bool background = !parts.device.is_cpu();
  CheckpointContent content =
      checkpoint_content(lasting(config), state, arena, *parts.data, group().size(), background && !arena.divided());
  if (parts.run != nullptr) writer.save(std::move(content), state, background);
}

// A checkpoint that can't be written now is no reason not to go on.
void Trainer::Impl::save_or_report() {
  try {
    save();
  } catch (const DistributedError&) {
    throw;
  } catch (const std::exception& error) {
    log_error("no checkpoint at step ", state.step, ": ", error.what(), ". Training goes on");
  }
}

void Trainer::Impl::load(const SavedCheckpoint& checkpoint, bool from_ema) {
  const LoadedState loaded = load_checkpoint(checkpoint, arena);
  state = loaded.state;
  if (from_ema && !state.resumed_from_ema) {
    arena.weights_from_ema();
    state.resumed_from_ema = true;
  }
  parts.data->restore(loaded.data_json);
  parts.data->seek(state.step);
  writer.found(state.step);
}

void Trainer::Impl::roll_back() {
  const std::string what = concat("loss or gradient were not finite in ", state.skipped_in_row, " steps in a row");
  if (state.attempt > 0) {
    fail(what, ", after going back once already. Lower lr, raise warmup_steps or lower gradient_clip_norm");
  }
  const uint64_t at = state.step;
  writer.wait_and_report();
  const auto checkpoint = shared_latest(parts.run, group());
  if (!checkpoint) fail(what, ", and there is no checkpoint yet to go back to. Lower lr or raise warmup_steps");
  load(*checkpoint, false);
  ++state.attempt;
  state.skipped_in_row = 0;
  log_warning(what, " (up to step ", at, "): going back to step ", state.step, " with other noise");
}

// After a step that has failed: that is what the user is told, whatever becomes of the checkpoint.
void Trainer::Impl::save_before_end() {
  try {
    save();
  } catch (const std::exception& error) {
    log_error("no checkpoint at step ", state.step, " before the end: ", error.what());
  }
}

// What went wrong; null: nothing.
std::exception_ptr Trainer::Impl::save_at_end() {
  try {
    save();
    writer.wait();
    return nullptr;
  } catch (const std::exception&) {
    return std::current_exception();
  }
}

uint64_t Trainer::Impl::last_step() const {
  const auto last = static_cast<uint64_t>(config.trainer.num_training_steps);
  return parts.last_step > 0 ? std::min(last, parts.last_step) : last;
}

TrainingEnd Trainer::Impl::run() {
  const uint64_t last = last_step();
  const auto save_freq = static_cast<uint64_t>(config.trainer.save_freq);
  // One of several processes is enough to say how it goes.
  std::optional<StepDisplay> display;
  if (group().rank() == 0) display.emplace(config.trainer, last, state, parts.show);
  if (wanted(writer.lacks_models(state.step))) save_or_report();
  bool overdue = false;
  bool stopped = false;
  while (state.step < last && !stopped) {
    StepReport report;
    try {
      report = step();
    } catch (const std::exception&) {
      if (ended_together) save_before_end();
      throw;
    }
    if (display) display->add(report, state);
    writer.report();
    // Among steps without an update the weights may be what is wrong: going back to them would be of no use.
    overdue = overdue || state.step % save_freq == 0;
    if (overdue && state.skipped_in_row == 0 && state.step < last) {
      save_or_report();
      overdue = false;
    }
    if (parts.on_step) parts.on_step(report);
    stopped = report.stop && state.step < last;
    if (!stopped && state.skipped_in_row >= static_cast<uint64_t>(config.trainer.max_skipped_steps)) roll_back();
  }
  const std::exception_ptr unsaved = save_at_end();
  group().wait_for_others("the last checkpoint");  // however long it takes
  group().first_does(
      [&unsaved] {
        if (unsaved) std::rethrow_exception(unsaved);
        return std::string();
      },
      "the last checkpoint");
  if (stopped) return TrainingEnd::kStopped;
  if (!writer.missing_models().empty()) {
    fail("training has ended and its last checkpoint is saved, but not the model files: ", writer.missing_models());
  }
  return TrainingEnd::kFinished;
}

Trainer::Trainer(const Config& config, uint64_t seed, const TrainerParts& parts)
    : impl_(std::make_unique<Impl>(config, seed, parts)) {}
Trainer::~Trainer() = default;
void Trainer::resume(const SavedCheckpoint& checkpoint) {
  impl_->load(checkpoint, impl_->config.trainer.resume_from_ema);
}
TrainingEnd Trainer::run() { return impl_->run(); }
StepReport Trainer::step() { return impl_->step(); }
void Trainer::save() {
  impl_->save();
  impl_->writer.wait();
}
const TrainingState& Trainer::state() const { return impl_->state; }
ParameterArena& Trainer::arena() { return impl_->arena; }

}  // namespace mdm
