// bench_training_step: time and memory of training steps: forward, backward, clipping, AdamW, average. On fixed
// images, texts and noise, without reading data. Prints one JSON object; with --turns it waits for its turn
// before each step, so that two programs can be measured alternately (compare.py --what training). Started as several
// processes they make their steps together, each on its own images, and rank 0 prints (processes.py).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "machine.h"
#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/distributed/process_group.h"
#include "mdm/models/unet.h"
#include "mdm/ops/memory.h"
#include "mdm/training/trainer.h"
#include "measure.h"
#include "op_profile.h"

namespace mdm::bench {
namespace {

constexpr uint64_t kSeed = 5;

// The same batch in every step.
class OneBatch : public BatchSource {
 public:
  OneBatch(int64_t images, int64_t side, const ProcessGroup& group) {
    batch_.first_row = group.rank() * images;
    batch_.total_rows = group.size() * images;
    const at::Tensor smooth = normal(3, 0, {images, 3, 8, 8});
    batch_.images = at::upsample_bilinear2d(smooth, {side, side}, false)
                        .mul(50)
                        .add(127)
                        .clamp(0, 255)
                        .to(at::kByte)
                        .permute({0, 2, 3, 1})
                        .contiguous();
    batch_.captions.assign(static_cast<size_t>(images), "");
    batch_.weights = at::ones({images});
    for (int64_t i = 0; i < images; ++i) batch_.samples.push_back(static_cast<uint64_t>(i));
  }
  Batch next() override { return batch_; }
  void seek(uint64_t /*step*/) override {}
  const at::Tensor& images() const { return batch_.images; }

 private:
  Batch batch_;
};

class OneText : public TextSource {
 public:
  OneText(int64_t images, int64_t length, int64_t width) {
    text_.lm_outputs = normal(2, 0, {images, length, width}) * 0.2;
    text_.lm_mask = at::ones({images, length});
  }
  int64_t width() const override { return text_.lm_outputs.size(2); }
  TextEmbedding embed(const Batch& /*batch*/) override { return text_; }
  const TextEmbedding& text() const { return text_; }

 private:
  TextEmbedding text_;
};

// Elements of the trained parameters in the arena's slots, by what they compute in.
Json slot_numbers(const ParameterArena& arena) {
  constexpr int64_t kSlotAlignment = 32;
  int64_t rounded = 0, floats = 0;
  for (const at::Tensor& parameter : arena.trained_parameters()) {
    const int64_t room = (parameter.numel() + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
    (parameter.scalar_type() == at::kBFloat16 ? rounded : floats) += room;
  }
  return {{"bfloat16", rounded}, {"float32", floats}};
}

// Calls and bytes handed to the engine of collectives so far, by kind.
Json traffic_of(const ProcessGroup& group) {
  using Kind = ProcessGroup::Collective;
  Json out;
  for (const auto& [name, kind] :
       {std::pair("all_reduce", Kind::kAllReduce), std::pair("reduce_scatter", Kind::kReduceScatter),
        std::pair("all_gather", Kind::kAllGather)}) {
    const ProcessGroup::Traffic traffic = group.traffic(kind);
    out[name] = {{"calls", traffic.calls}, {"bytes", traffic.bytes}};
  }
  return out;
}

int run(const ParsedCommandLine& command_line) {
  Config config = command_line.load().config;
  if (config.sample.checkpoint.empty())
    fail<ConfigError>("checkpoint: name a file of weights (checkpoint init ... --randomize 1)");
  const Launch launch = detect_launch(config.distributed, process_environment());
  ops::keep_freed_memory();
  if (config.runtime.threads > 0) at::set_num_threads(static_cast<int>(config.runtime.threads));
  const auto group = ProcessGroup::join(launch, config.distributed, {});
  const int64_t length = number(command_line, "text-length", 1, 32);
  const int64_t steps = number(command_line, "steps", 1, 3), warm_up = number(command_line, "warm-up", 0, 1);
  const int64_t images = number(command_line, "images", 1, 2);
  const int64_t side = config.reader.image_size;
  if (side <= 0) fail<ConfigError>("image_size: the config does not say how large the pictures are; set it");
  const size_t levels = level_scales(config.model).size();

  auto start = Clock::now();
  const TensorFile file = TensorFile::open(config.sample.checkpoint);
  const int64_t width = text_width(file, levels);
  ModelOptions options;
  options.channels_last = true;
  const auto model = make_model(config.model, width, options);
  std::vector<NamedTensor> destination;
  for (const auto& item : model->named_parameters()) destination.push_back({item.key(), item.value()});
  load_state_dict(file, destination);
  OneBatch data(images, side, *group);
  OneText text(images, length, std::max<int64_t>(width, 1));
  TrainerParts parts;
  parts.model = model.get();
  parts.data = &data;
  parts.text = width > 0 ? &text : nullptr;
  parts.group = group.get();
  parts.compat.torch_noise = true;  // the same noise and times as the opponent's
  Trainer trainer(config, kSeed, parts);
  const double load_seconds = seconds_since(start);
  const double load_peak = peak_rss_mib();
  const bool fresh_peak = reset_peak_rss();
  if (command_line.has("dump")) {
    std::vector<NamedTensor> inputs = {{"images", data.images()}};
    if (width > 0)
      inputs.insert(inputs.end(), {{"lm_outputs", text.text().lm_outputs}, {"lm_mask", text.text().lm_mask}});
    write_pth(command_line.option("dump"), inputs, Json{{"seed", kSeed}}.dump());
  }

  std::vector<double> losses;
  StepReport sum;
  const auto step = [&] {
    const StepReport done = trainer.step();
    losses.push_back(done.loss);
    sum.forward_seconds += done.forward_seconds;
    sum.backward_seconds += done.backward_seconds;
    sum.update_seconds += done.update_seconds;
  };
  start = Clock::now();
  for (int64_t i = 0; i < warm_up; ++i) step();
  const double warm_up_seconds = seconds_since(start);
  const size_t first = losses.size();
  sum = {};
  const Json traffic_before = traffic_of(*group);
  const Timings timings = timed_steps(step, steps, command_line.has("turns"));
  const double step_peak = peak_rss_mib();
  if (command_line.has("profile")) print_profile(step, config.runtime.precision == Precision::kBf16);

  Json report = report_head("bench_training_step");
  report["model"] = config.model.kind();
  report["side"] = side;
  report["processes"] = group->size();
  report["images"] = images * group->size();
  report["rows"] = images;
  report["text_length"] = width > 0 ? length : 0;
  report["precision"] = config.runtime.precision == Precision::kBf16 ? "bf16" : "fp32";
  report["gradient_checkpointing"] = config.trainer.gradient_checkpointing;
  report["load_seconds"] = load_seconds;
  report["warm_up_seconds"] = warm_up_seconds;
  add_timings(report, timings);
  const auto mean = [&](double seconds) { return seconds / static_cast<double>(losses.size() - first); };
  report["mean_seconds"] = {{"forward", mean(sum.forward_seconds)},
                            {"backward", mean(sum.backward_seconds)},
                            {"update", mean(sum.update_seconds)}};
  report["load_peak_rss_mib"] = load_peak;
  report["step_peak_rss_mib"] = fresh_peak ? Json(step_peak) : Json(nullptr);
  report["losses"] = losses;
  const auto bytes = trainer.arena().bytes();
  report["state_mb"] = {{"weights", static_cast<double>(bytes.weights) / 1e6},
                        {"gradients", static_cast<double>(bytes.gradients) / 1e6},
                        {"moments", static_cast<double>(bytes.moments) / 1e6},
                        {"averages", static_cast<double>(bytes.ema) / 1e6}};
  report["numbers"] = slot_numbers(trainer.arena());
  report["bucket_mb"] = config.trainer.bucket_mb;
  report["reduce_precision"] = config.trainer.reduce_precision == Precision::kBf16 ? "bf16" : "fp32";
  report["sharded"] = trainer.arena().divided();
  report["timed_steps"] = losses.size() - first;
  report["traffic"] = {{"before", traffic_before}, {"after", traffic_of(*group)}};
  if (group->rank() != 0) return 0;
  std::cout << report.dump(command_line.has("turns") ? -1 : 2) << std::endl;
  return 0;
}

AppInfo info() {
  AppInfo info;
  info.name = "bench_training_step";
  info.summary = "Measures training steps of a model on the CPU.";
  info.sections = Section::kModel | Section::kDiffusion | Section::kReader | Section::kTrainer | Section::kSample |
                  Section::kRuntime | Section::kDistributed;
  info.use = ConfigUse::kInspect;
  info.options = {{"images", "N", "samples of a batch (default 2)"},
                  {"text-length", "N", "tokens of each text (default 32)"},
                  {"steps", "N", "steps that are timed (default 3)"},
                  {"warm-up", "N", "steps before them (default 1)"},
                  {"dump", "FILE", "write the inputs to a .pth file"},
                  {"profile", "", "also print where the time of one more step goes, per operation"},
                  {"turns", "", "one step for each line 'step' on the standard input, until it ends"}};
  return info;
}

}  // namespace
}  // namespace mdm::bench

int main(int argc, char** argv) {
  return mdm::run_app(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc), mdm::bench::info(),
                      mdm::bench::run);
}
