// Whole sampling runs, step by step, with the reference's random draws.
#include <ATen/ATen.h>

#include <cstdio>
#include <map>

#include "golden_runner/diffusion_case.h"
#include "mdm/diffusion/guidance.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/sampler.h"

namespace mdm::golden {
namespace {

/// "00", "07", "12": how the cases number steps and draws.
std::string padded(size_t number, int digits) {
  char text[24];
  std::snprintf(text, sizeof text, "%0*zu", digits, number);
  return text;
}

/// Torch's generator in the reference's order; every draw that the case has recorded must be equal.
class RecordedNoise : public NoiseSource {
 public:
  RecordedNoise(uint64_t seed, const TensorFile& inputs, Report& report)
      : source_(make_generator(seed)), inputs_(inputs), report_(report) {}
  at::Tensor start(size_t level, at::IntArrayRef shape) override { return checked(source_.start(level, shape)); }
  at::Tensor step(int64_t step, size_t level, at::IntArrayRef shape) override {
    return checked(source_.step(step, level, shape));
  }
  size_t draws() const { return draws_; }

 private:
  at::Tensor checked(at::Tensor drawn) {
    const std::string name = "draw." + padded(draws_++, 3);
    if (inputs_.find(name) != nullptr) report_.exact(name, drawn, inputs_.tensor(name));
    return drawn;
  }
  GeneratorNoise source_;
  const TensorFile& inputs_;
  Report& report_;
  size_t draws_ = 0;
};

struct Call {
  int64_t steps = 2000, t = -1;
  bool resample = false, inner = false, sequence = false;
  std::optional<double> eta;
  double guidance = 1;
};

Call read_call(const nlohmann::json& arguments) {
  Call call;
  call.steps = arguments.value("num_inference_steps", call.steps);
  call.t = arguments.value("t", call.t);
  call.resample = arguments.value("resample_steps", call.resample);
  call.inner = arguments.value("output_inner", call.inner);
  call.sequence = arguments.value("return_sequence", call.sequence);
  call.guidance = arguments.value("guidance_scale", call.guidance);
  if (arguments.contains("ddim_eta") && !arguments["ddim_eta"].is_null())
    call.eta = arguments["ddim_eta"].get<double>();
  return call;
}

/// Runs the case and gives every tensor that a case may have recorded the name it has there.
std::map<std::string, at::Tensor> run_case(const nlohmann::json& info, const LoadedModel& loaded,
                                           const TensorFile& inputs, Report& report) {
  const Call call = read_call(info.at("call_kwargs"));
  Compat compat;
  compat.unclamped_steps = compat.reference_draws = compat.truncated_pixels = true;
  const Schedule schedule(loaded.config.diffusion.sampler_config, level_scales(loaded.config.model));
  SamplingRun run;
  run.batch = info.at("batch");
  run.height = run.width = info.at("image_side");
  run.timesteps = make_timesteps(schedule.steps(), call.resample ? call.steps : schedule.steps(),
                                 TimestepSpacing::kReference, compat);
  if (call.t >= 0) run.first_step = first_step_from(run.timesteps, call.t);
  const std::vector<int64_t> visited(run.timesteps.begin() + run.first_step, run.timesteps.end());
  report.require(visited == info.at("timesteps").get<std::vector<int64_t>>(), "timesteps", "differ");

  const std::optional<TextEmbedding> text = case_text(inputs);
  const MicroValues micros = named_micros(inputs, *loaded.model);
  GuidanceOptions options;
  options.scale = call.guidance;
  options.output_scale = loaded.config.diffusion.model_output_scale;
  GuidedModel guided(*loaded.model,
                     call.guidance == 1 ? loaded.model->condition(text ? &*text : nullptr, micros, run.batch)
                                        : condition_pairs(*loaded.model, text ? &*text : nullptr, micros, run.batch),
                     options);
  std::vector<int64_t> model_times;
  std::vector<at::Tensor> predictions;
  const Denoiser denoiser(schedule, [&](const std::vector<at::Tensor>& x_t, const at::Tensor& times) {
    model_times.push_back(times[0].item<int64_t>());
    return predictions = guided(x_t, times);
  });

  std::map<std::string, at::Tensor> own;
  const auto picture = [&](const std::vector<at::Tensor>& images) {
    return call.inner ? join_levels(images) : images[0];
  };
  size_t index = 0;  // the reference counts from the first step that is run
  at::Tensor last;
  run.after_step = [&](const SamplingStep&, const SampleState& state) {
    const std::string step = "step." + padded(index, 2) + ".";
    for (size_t i = 0; i < state.x_t.size(); ++i) {
      const std::string level = "." + std::to_string(i);
      own[step + "x_t" + level] = state.x_t[i];
      own[step + "x0" + level] = state.x_0[i];
      own[step + "pred" + level] = predictions[i];
    }
    const std::string yield = "yield." + padded(index, 2) + ".";
    own[yield + "x0"] = picture(to_images(state.x_0, schedule, false));
    own[yield + "x_t"] = picture(to_images(state.x_t, schedule, false));
    last = to_images(state.x_t, schedule, false)[0];
    own["sequence." + padded(++index, 2)] = last;
  };
  RecordedNoise noise(info.at("noise_seed").get<uint64_t>(), inputs, report);
  DdimSampler sampler(call.eta, compat);
  const SamplingResult result = run_sampler(sampler, denoiser, noise, run);
  report.require(noise.draws() == info.at("draws").size(), "number of draws",
                 std::to_string(noise.draws()) + " instead of " + std::to_string(info.at("draws").size()));
  report.require(model_times == info.at("model_t").get<std::vector<int64_t>>(), "times given to the model", "differ");

  own["sequence.00"] = optional_tensor(inputs, "draw.000");
  own["sequence." + padded(index, 2)] = last.clamp(-1, 1);
  own["final.x_t"] = own["final.image"] = picture(result.x_t);
  own["final.x0"] = picture(result.x_0);
  own["final.uint8_batch_cli"] = to_bytes(own["final.x_t"], compat);
  own["final.demo_0_1"] = (own["final.x0"] * .5 + .5).clamp(0, 1);
  const std::vector<float>& gammas = schedule.gammas(schedule.levels() - 1);
  own["final.g"] = at::full({run.batch}, gammas[static_cast<size_t>(visited[visited.size() - 2])]);
  own["final.g_last"] = at::full({run.batch}, gammas[0]);
  return own;
}

}  // namespace

void check_sampler(const std::filesystem::path& path, const Context&, Report& report) {
  const c10::AutoGradMode gradients(false);
  const nlohmann::json info = read_json(path / "case.json");
  const nlohmann::json& tolerance = info.at("tolerance");
  const LoadedModel loaded = load_case_model(path);
  const TensorFile inputs = TensorFile::open(path / "inputs.safetensors");
  const TensorFile outputs = TensorFile::open(path / "outputs.safetensors");
  const std::map<std::string, at::Tensor> own = run_case(info, loaded, inputs, report);
  for (const TensorEntry& entry : outputs.entries()) {
    const auto found = own.find(entry.name);
    const bool bytes = entry.dtype == at::kByte;
    report.compare(entry.name, found == own.end() ? at::Tensor() : found->second, outputs.tensor(entry.name),
                   bytes ? tolerance.value("uint8", 1.0) : tolerance.at("atol").get<double>(),
                   bytes ? 0 : tolerance.at("rtol").get<double>());
  }
}

}  // namespace mdm::golden
