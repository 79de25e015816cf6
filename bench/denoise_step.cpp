// bench_denoise_step: time and memory of one denoising step as `sample` makes it, guidance included.
// Prints one JSON object; with --turns it waits for its turn before each step, so that two programs can
// be measured alternately (compare.py).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "machine.h"
#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/write.h"
#include "mdm/config/command_line.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/diffusion/guidance.h"
#include "mdm/diffusion/sampler.h"
#include "mdm/models/unet.h"
#include "mdm/ops/memory.h"
#include "measure.h"
#include "op_profile.h"

namespace mdm::bench {
namespace {

// The step that is measured: the middle of a run of 50.
constexpr int64_t kTime = 500, kNextTime = 480;
// A model whose output is nearly constant would be no use to a comparison of outputs.
constexpr double kLeastDeviation = 0.1;

// What the step works on; the opponent reads the same from --dump.
struct Inputs {
  std::vector<at::Tensor> x_t;
  TextEmbedding text;  // negative prompts, then prompts; the former fill a quarter of the length
};

Inputs make_inputs(int64_t batch, int64_t side, const std::vector<int64_t>& scales, bool guided, int64_t length,
                   int64_t width) {
  Inputs inputs;
  for (size_t level = 0; level < scales.size(); ++level) {
    const int64_t pixels = side * scales[level] / scales[0];
    inputs.x_t.push_back(normal(1, static_cast<uint32_t>(level), {batch, 3, pixels, pixels}));
  }
  if (width <= 0) return inputs;
  const int64_t rows = guided ? 2 * batch : batch;
  inputs.text.lm_outputs = normal(2, 0, {rows, length, width}) * 0.2;
  inputs.text.lm_mask = at::ones({rows, length});
  if (guided) {
    const int64_t tokens = std::max<int64_t>(1, length / 4);
    inputs.text.lm_mask.narrow(0, 0, batch).narrow(1, tokens, length - tokens).zero_();
    inputs.text.lm_outputs *= inputs.text.lm_mask.unsqueeze(-1);
  }
  return inputs;
}

std::shared_ptr<UNet> load_model(const Config& config, int64_t width, int64_t rows, int64_t side) {
  ModelOptions options;
  options.dtype = config.runtime.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
  options.channels_last = true;
  auto model = make_model(config.model, width, options);
  std::vector<NamedTensor> destination;
  for (const auto& item : model->named_parameters()) destination.push_back({item.key(), item.value()});
  LoadOptions load;
  load.share = true;
  load_state_dict(TensorFile::open(config.sample.checkpoint), destination, load);
  model->eval();
  model->pack(rows, side, side);
  own_tensors(destination);
  return model;
}

void write_dump(const std::string& path, const Inputs& inputs, const std::vector<at::Tensor>& raw,
                const std::vector<at::Tensor>& guided, const SampleState& next) {
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, const std::vector<at::Tensor>& levels) {
    for (size_t i = 0; i < levels.size(); ++i) tensors.push_back({name + "." + std::to_string(i), levels[i]});
  };
  add("x_t", inputs.x_t);
  add("prediction", raw);
  add("guided", guided);
  add("x_next", next.x_t);
  if (inputs.text.lm_outputs.defined()) {
    tensors.push_back({"lm_outputs", inputs.text.lm_outputs});
    tensors.push_back({"lm_mask", inputs.text.lm_mask});
  }
  write_pth(path, tensors, Json{{"time", kTime}, {"next_time", kNextTime}}.dump());
}

int run(const ParsedCommandLine& command_line) {
  const c10::NoGradGuard no_grad;
  const Config config = command_line.load().config;
  if (config.sample.checkpoint.empty())
    fail<ConfigError>("checkpoint: name a file of weights (checkpoint init ... --randomize 1)");
  ops::keep_freed_memory();
  if (config.runtime.threads > 0) at::set_num_threads(static_cast<int>(config.runtime.threads));
  const int64_t length = number(command_line, "text-length", 1, 32);
  const int64_t steps = number(command_line, "steps", 1, 3), warm_up = number(command_line, "warm-up", 0, 1);
  const bool guided = config.sample.guidance_scale != 1;
  const int64_t batch = command_line.has("images") ? number(command_line, "images", 1, 1) : 1;
  const int64_t rows = guided ? 2 * batch : batch;
  const int64_t side = config.sample.sample_image_size > 0 ? config.sample.sample_image_size : config.reader.image_size;
  if (side <= 0) fail<ConfigError>("sample_image_size: the config does not say how large the pictures are; set it");
  const std::vector<int64_t> scales = level_scales(config.model);
  const int64_t width = text_width(TensorFile::open(config.sample.checkpoint), scales.size());

  auto start = Clock::now();
  const double cpu_before = cpu_seconds();
  const auto model = load_model(config, width, rows, side);
  const double load_seconds = seconds_since(start), load_cpu_seconds = cpu_seconds() - cpu_before;
  const double load_peak = peak_rss_mib();
  const bool fresh_peak = reset_peak_rss();

  const Inputs inputs = make_inputs(batch, side, scales, guided, length, width);
  const TextEmbedding* text = width > 0 ? &inputs.text : nullptr;
  start = Clock::now();
  const Conditioning conditioning =
      guided ? condition_pairs(*model, text, {}, batch) : model->condition(text, {}, batch);
  const double condition_seconds = seconds_since(start);

  const Schedule schedule(config.diffusion.sampler_config, scales);
  GuidanceOptions options;
  options.scale = config.sample.guidance_scale;
  options.output_scale = config.diffusion.model_output_scale;
  GuidedModel guided_model(*model, conditioning, options);
  const Denoiser denoiser(schedule, guided_model.callback(), config.sample.threshold);
  const auto sampler = make_sampler(config.sample);
  SeededNoise noise(std::vector<uint64_t>(static_cast<size_t>(batch), 1));
  const SamplingStep at{25, 50, kTime, kNextTime};
  SampleState next;
  const auto step = [&] { next = sampler->step(at, inputs.x_t, denoiser, noise); };

  start = Clock::now();
  for (int64_t i = 0; i < warm_up; ++i) step();
  const double warm_up_seconds = seconds_since(start);
  const Timings timings = timed_steps(step, steps, command_line.has("turns"));
  const double step_peak = peak_rss_mib();
  if (command_line.has("profile")) print_profile(step, config.runtime.precision == Precision::kBf16);

  // Outside of the timing: what the network itself says, of all rows.
  const at::Tensor times = at::full({batch}, kTime - 1, at::kLong);
  std::vector<at::Tensor> both = inputs.x_t;
  if (guided) {
    for (at::Tensor& x : both) x = at::cat({x, x});
  }
  const std::vector<at::Tensor> raw = model->forward(both, guided ? at::cat({times, times}) : times, conditioning);
  std::vector<double> deviations;
  for (const at::Tensor& prediction : raw) deviations.push_back(prediction.std().item<double>());
  if (command_line.has("dump")) {
    write_dump(command_line.option("dump"), inputs, raw, guided_model(inputs.x_t, times), next);
  }

  Json report = report_head("bench_denoise_step");
  report["model"] = config.model.kind();
  report["side"] = side;
  report["images"] = batch;
  report["rows"] = rows;
  report["text_length"] = width > 0 ? length : 0;
  report["precision"] = config.runtime.precision == Precision::kBf16 ? "bf16" : "fp32";
  report["load_seconds"] = load_seconds;
  report["load_cpu_seconds"] = load_cpu_seconds;
  report["condition_seconds"] = condition_seconds;
  report["warm_up_seconds"] = warm_up_seconds;
  add_timings(report, timings);
  report["load_peak_rss_mib"] = load_peak;
  report["step_peak_rss_mib"] = fresh_peak ? Json(step_peak) : Json(nullptr);
  report["prediction_std"] = deviations;
  std::cout << report.dump(command_line.has("turns") ? -1 : 2) << std::endl;
  const double deviation = least(deviations);
  if (!(deviation >= kLeastDeviation)) {
    fail("the network's output has a standard deviation of only ", deviation,
         "; are these fresh weights without --randomize?");
  }
  return 0;
}

AppInfo info() {
  AppInfo info;
  info.name = "bench_denoise_step";
  info.summary = "Measures one denoising step of a model on the CPU.";
  info.sections = Section::kModel | Section::kDiffusion | Section::kReader | Section::kSample | Section::kRuntime;
  info.use = ConfigUse::kInspect;
  info.options = {{"images", "N", "pictures denoised together (default 1); with guidance the network sees 2 N rows"},
                  {"text-length", "N", "tokens of each text (default 32)"},
                  {"steps", "N", "steps that are timed (default 3)"},
                  {"warm-up", "N", "steps before them (default 1)"},
                  {"dump", "FILE", "write inputs and outputs to a .pth file"},
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
