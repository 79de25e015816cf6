#include "training/sample_grid.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "mdm/diffusion/guidance.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/sampler.h"
#include "mdm/media/grid.h"
#include "training/evaluation_mode.h"

namespace mdm {
namespace {

constexpr uint64_t kGridSeed = 1;  // picture i has kGridSeed + i

const std::string& prompt_of(const GridSetup& setup, size_t number) {
  return setup.prompts[number % setup.prompts.size()];
}

// Pictures with these numbers; none when asked to stop.
std::vector<Image> draw(const Config& config, const GridSetup& setup, const UNet& model, TextEncoder* encoder,
                        const std::vector<size_t>& numbers) {
  const auto rows = static_cast<int64_t>(numbers.size());
  const bool guided = config.trainer.sample_guidance != 1;
  std::optional<TextEmbedding> text;
  if (encoder != nullptr) {
    std::vector<std::string> prompts;
    for (const size_t number : numbers) prompts.push_back(prompt_of(setup, number));
    const std::vector<std::string> negatives(numbers.size());
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
  for (const size_t number : numbers) seeds.push_back(kGridSeed + number);
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

bool draw_pictures(const Config& config, const GridSetup& setup, const std::vector<size_t>& numbers, UNet& model,
                   ParameterArena& arena, TextEncoder* encoder,
                   const std::function<void(size_t first, const std::vector<Image>& pictures,
                                            const std::vector<std::string>& prompts)>& take) {
  const EvaluationMode mode(model, arena);
  const auto batch = static_cast<size_t>(config.trainer.batch_size);
  for (size_t first = 0; first < numbers.size(); first += batch) {
    const auto begin = numbers.begin() + static_cast<std::ptrdiff_t>(first);
    const std::vector<size_t> some(begin, begin + static_cast<std::ptrdiff_t>(std::min(batch, numbers.size() - first)));
    const std::vector<Image> drawn = draw(config, setup, model, encoder, some);
    if (drawn.empty()) return false;
    std::vector<std::string> prompts;
    for (const size_t number : some) prompts.push_back(prompt_of(setup, number));
    take(first, drawn, prompts);
  }
  return true;
}

std::optional<Image> draw_grid(const Config& config, const GridSetup& setup, UNet& model, ParameterArena& arena,
                               TextEncoder* encoder) {
  std::vector<size_t> numbers(setup.draws ? setup.prompts.size() : 0);
  std::iota(numbers.begin(), numbers.end(), size_t{0});
  std::vector<Image> images;
  const bool whole = draw_pictures(config, setup, numbers, model, arena, encoder,
                                   [&](size_t, const std::vector<Image>& drawn, const std::vector<std::string>&) {
                                     images.insert(images.end(), drawn.begin(), drawn.end());
                                   });
  if (!whole || !setup.draws) return std::nullopt;
  return make_grid(images);
}

}  // namespace mdm
