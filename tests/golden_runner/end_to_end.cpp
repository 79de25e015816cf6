// From prompt text to the bytes of a PNG: tokenizer, text encoder, every sampling step, and the picture
// that the pipeline writes.
#include <ATen/ATen.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "golden_runner/model_case.h"
#include "mdm/core/error.h"
#include "mdm/diffusion/guidance.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/sampler.h"
#include "mdm/media/decode.h"
#include "mdm/pipeline.h"
#include "mdm/text/text_encoder.h"
#include "pipeline/loaded_checkpoint.h"

namespace mdm::golden {
namespace {

struct RunInfo {
  std::string name;
  std::vector<std::string> prompts, negatives;
  std::vector<std::string> images;
};

std::string two_digits(size_t number) {
  char text[24];
  std::snprintf(text, sizeof text, "%02zu", number);
  return text;
}

// The vocabulary that the case names: below the reference folder, or where the case says it lies.
std::filesystem::path vocabulary(const std::filesystem::path& path, const nlohmann::json& info,
                                 const Context& context) {
  const auto found = reference_file(context, "data/t5.vocab");
  if (!found.empty()) return found;
  const auto beside = path.parent_path() / info.at("vocab_file").get<std::string>();
  return std::filesystem::exists(beside) ? beside : std::filesystem::path();
}

Config case_config(const std::filesystem::path& path, const nlohmann::json& info, const std::string& vocab,
                   const std::string& pad) {
  Overrides overrides = {{"vocab_file", vocab},
                         {"text_model", (path / "text_model").string()},
                         {"checkpoint", (path / "vis_model.pth").string()},
                         {"guidance_scale", info.at("guidance_scale").dump()},
                         {"num_inference_steps", info.at("num_inference_steps").dump()},
                         {"batch_size", "64"},
                         {"pad", pad},
                         {"device", "cpu"}};
  if (!info.at("ddim_eta").is_null()) overrides.emplace_back("ddim_eta", info.at("ddim_eta").dump());
  return load_config({path / "config.yaml"}, overrides, ConfigUse::kSample);
}

// All tensors of a run under the names of the case.
std::map<std::string, at::Tensor> run_tensors(const Config& config, const RunInfo& run, uint64_t seed,
                                              const Compat& compat) {
  std::map<std::string, at::Tensor> own;
  const auto encoder = make_text_encoder(config.text, config.reader);
  const TextEmbedding text = encoder->encode_pairs(run.negatives, run.prompts, config.text.pad);
  own["lm_outputs"] = text.lm_outputs;
  own["lm_mask"] = text.lm_mask;

  const TensorFile file = open_weights(config.sample.checkpoint, true);
  const auto model = make_model(config.model, text_width_of(file, config.model.levels.size()));
  load_weights(file, *model);
  model->eval();
  const auto batch = static_cast<int64_t>(run.prompts.size());
  const Schedule schedule(config.diffusion.sampler_config, level_scales(config.model));
  GuidanceOptions options;
  options.scale = config.sample.guidance_scale;
  options.output_scale = config.diffusion.model_output_scale;
  GuidedModel guided(*model, condition_pairs(*model, &text, {}, batch), options);
  std::vector<at::Tensor> predictions;
  const Denoiser denoiser(schedule, [&](const std::vector<at::Tensor>& x_t, const at::Tensor& times) {
    return predictions = guided(x_t, times);
  });
  SamplingRun sampling;
  sampling.batch = batch;
  sampling.height = sampling.width = config.sample.sample_image_size;
  sampling.timesteps =
      make_timesteps(schedule.steps(), config.sample.num_inference_steps, TimestepSpacing::kReference, compat);
  sampling.after_step = [&](const SamplingStep& step, const SampleState& state) {
    const std::string prefix = "step." + two_digits(static_cast<size_t>(step.index)) + ".";
    for (size_t level = 0; level < state.x_t.size(); ++level) {
      const std::string suffix = "." + std::to_string(level);
      own[prefix + "x_t" + suffix] = state.x_t[level];
      own[prefix + "x0" + suffix] = state.x_0[level];
      own[prefix + "pred" + suffix] = predictions[level];
    }
  };
  GeneratorNoise noise(make_generator(seed));
  const SamplingResult result = run_sampler(*make_sampler(config.sample, compat), denoiser, noise, sampling);
  for (size_t level = 0; level < result.x_t.size(); ++level) {
    own["final.image." + std::to_string(level)] = result.x_t[level];
    own["final.x0." + std::to_string(level)] = result.x_0[level];
  }
  own["final.uint8"] = to_bytes(result.x_t[0], compat);
  return own;
}

void compare_tensors(const RunInfo& run, const std::map<std::string, at::Tensor>& own, const TensorFile& expected,
                     const nlohmann::json& tolerance, Report& report) {
  for (const TensorEntry& entry : expected.entries()) {
    if (entry.name.rfind(run.name + ".", 0) != 0) continue;
    const std::string name = entry.name.substr(run.name.size() + 1);
    if (name.rfind("draw.", 0) == 0 || name == "tokens") continue;  // seen through what is made of them
    const auto found = own.find(name);
    const at::Tensor actual = found == own.end() ? at::Tensor() : found->second;
    const at::Tensor wanted = expected.tensor(entry.name);
    if (name == "lm_mask") {
      report.compare(entry.name, actual, wanted, 0, 0);
    } else if (name == "lm_outputs") {
      report.compare(entry.name, actual, wanted, tolerance.at("lm_outputs").at("atol"),
                     tolerance.at("lm_outputs").at("rtol"));
    } else if (entry.dtype == at::kByte) {
      report.compare(entry.name, actual, wanted, tolerance.at("uint8").get<double>(), 0);
    } else {
      report.compare(entry.name, actual, wanted, tolerance.at("step_and_final").at("atol"),
                     tolerance.at("step_and_final").at("rtol"));
    }
  }
}

// The same pictures through the pipeline that programs use.
void compare_pictures(const std::filesystem::path& path, const Config& config, const RunInfo& run, uint64_t seed,
                      const Compat& compat, double tolerance, Report& report) {
  std::vector<PictureRequest> requests;
  for (size_t i = 0; i < run.prompts.size(); ++i) requests.push_back({run.prompts[i], run.negatives[i], seed});
  Pipeline pipeline(config, compat);
  const std::vector<Picture> pictures = pipeline.generate(requests);
  report.require(pictures.size() == run.images.size(), "number of pictures");
  for (size_t i = 0; i < std::min(pictures.size(), run.images.size()); ++i) {
    const Image wanted = load_image(path / run.images[i]);
    const Image& actual = pictures[i].image;
    report.require(actual.width == wanted.width && actual.height == wanted.height && actual.channels == wanted.channels,
                   run.images[i] + ": size");
    if (actual.pixels.size() != wanted.pixels.size()) continue;
    const auto bytes = [](const Image& image) {
      at::Tensor t = at::empty({static_cast<int64_t>(image.pixels.size())}, at::kByte);
      std::memcpy(t.data_ptr(), image.pixels.data(), image.pixels.size());
      return t;
    };
    report.compare(run.name + " " + run.images[i], bytes(actual), bytes(wanted), tolerance, 0);
  }
}

}  // namespace

void check_end_to_end(const std::filesystem::path& path, const Context& context, Report& report) {
  const c10::AutoGradMode gradients(false);
  const nlohmann::json info = read_json(path / "case.json");
  const auto vocab = vocabulary(path, info, context);
  if (vocab.empty()) return report.skip("the reference's data/t5.vocab is not there");
  const TensorFile outputs = TensorFile::open(path / "outputs.safetensors");
  const auto seed = info.at("seed").get<uint64_t>();
  Compat compat;
  compat.reference_draws = compat.truncated_pixels = compat.torch_noise = true;
  for (const nlohmann::json& item : info.at("runs")) {
    RunInfo run;
    run.name = item.at("name");
    run.prompts = item.at("prompts").get<std::vector<std::string>>();
    run.negatives.assign(run.prompts.size(), item.at("negative_prompt").get<std::string>());
    run.images = item.at("images").get<std::vector<std::string>>();
    // The reference pads a batch to its longest row; alone that is the longer of a pair.
    const Config config = case_config(path, info, vocab.string(), run.prompts.size() == 1 ? "pair" : "batch");
    compare_tensors(run, run_tensors(config, run, seed, compat), outputs, info.at("tolerance"), report);
    compare_pictures(path, config, run, seed, compat, info.at("tolerance").at("uint8").get<double>(), report);
  }
}

}  // namespace mdm::golden
