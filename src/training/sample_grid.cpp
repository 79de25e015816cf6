#include "training/sample_grid.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cstring>

#include "mdm/diffusion/guidance.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/sampler.h"
#include "mdm/media/grid.h"
#include "training/evaluation_mode.h"

namespace mdm {
namespace {

constexpr uint64_t kGridSeed = 1;  // picture i has kGridSeed + i

// Pictures of prompts [first, first + count); none when asked to stop.
std::vector<Image> draw(const Config& config, const GridSetup& setup, const UNet& model, TextEncoder* encoder,
                        size_t first, size_t count) {
  const auto rows = static_cast<int64_t>(count);
  const bool guided = config.trainer.sample_guidance != 1;
  std::optional<TextEmbedding> text;
  if (encoder != nullptr) {
    const std::vector<std::string> prompts(setup.prompts.begin() + static_cast<std::ptrdiff_t>(first),
                                           setup.prompts.begin() + static_cast<std::ptrdiff_t>(first + count));
    const std::vector<std::string> negatives(count);
    text =
        guided ? encoder->encode_pairs(negatives, prompts, config.text.pad) : encoder->encode(prompts, config.text.pad);
  }
  GuidanceOptions guidance;
  guidance.scale = config.trainer.sample_guidance;
  guidance.output_scale = config.diffusion.model_output_scale;
  GuidedModel guided_model(model,
                           guided ? condition_pairs(model, text ? &*text : nullptr, {}, rows)
                                  : model.condition(text ? &*text : nullptr, {}, rows),
                           guidance);
  const Schedule schedule(config.diffusion.sampler_config, level_scales(config.model));
  const Denoiser denoiser(schedule, guided_model.callback());
  std::vector<uint64_t> seeds;
  for (size_t i = 0; i < count; ++i) seeds.push_back(kGridSeed + first + i);
  SeededNoise noise(seeds, setup.device);
  SampleConfig settings;
  const auto sampler = make_sampler(settings);
  SamplingRun run;
  run.batch = rows;
  run.height = run.width = setup.side;
  run.timesteps = make_timesteps(schedule.steps(), std::min(config.trainer.sample_steps, schedule.steps()),
                                 settings.timestep_spacing);
  run.before_step = [&](const SamplingStep& step) { guided_model.begin_step(step); };
  run.cancel = setup.stop;
  const SamplingResult result = run_sampler(*sampler, denoiser, noise, run);
  if (result.cancelled) return {};
  const at::Tensor bytes = to_bytes(result.x_t[0]).to(at::kCPU).contiguous();
  std::vector<Image> images;
  for (int64_t i = 0; i < rows; ++i) {
    Image image(static_cast<int>(setup.side), static_cast<int>(setup.side), 3);
    std::memcpy(image.pixels.data(), bytes[i].const_data_ptr(), image.pixels.size());
    images.push_back(std::move(image));
  }
  return images;
}

}  // namespace

std::optional<Image> draw_grid(const Config& config, const GridSetup& setup, UNet& model, ParameterArena& arena,
                               TextEncoder* encoder) {
  const EvaluationMode mode(model, arena);
  if (!setup.draws) return std::nullopt;
  std::vector<Image> images;
  const auto batch = static_cast<size_t>(config.trainer.batch_size);
  for (size_t first = 0; first < setup.prompts.size(); first += batch) {
    const size_t count = std::min(batch, setup.prompts.size() - first);
    std::vector<Image> drawn = draw(config, setup, model, encoder, first, count);
    if (drawn.empty()) return std::nullopt;
    for (Image& image : drawn) images.push_back(std::move(image));
  }
  return make_grid(images);
}

}  // namespace mdm
