// From requests to pictures: text first, then the image model, batch by batch.
#include "mdm/pipeline.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/diffusion/guidance.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/sampler.h"
#include "mdm/media/decode.h"
#include "mdm/media/resize.h"
#include "mdm/text/text_encoder.h"
#include "pipeline/device.h"
#include "pipeline/inside_probe.h"
#include "pipeline/loaded_checkpoint.h"
#include "pipeline/shared_text_encoders.h"

namespace mdm {
namespace {

// (H, W, C) bytes -> Image.
Image image_of(const at::Tensor& bytes) {
  const at::Tensor host = bytes.to(at::kCPU).contiguous();
  Image image(static_cast<int>(host.size(1)), static_cast<int>(host.size(0)), static_cast<int>(host.size(2)));
  std::memcpy(image.pixels.data(), host.const_data_ptr(), image.pixels.size());
  return image;
}

std::vector<Image> images_of(const at::Tensor& batch, const Compat& compat = {}) {
  const at::Tensor bytes = to_bytes(batch, compat).to(at::kCPU);  // (B, H, W, C)
  std::vector<Image> images;
  for (int64_t i = 0; i < bytes.size(0); ++i) images.push_back(image_of(bytes[i]));
  return images;
}

// A look at the state of a run, on the scale of images.
class StepView : public GenerationStep {
 public:
  // `probe` and `guided`: null unless someone looks inside.
  StepView(const SampleState& state, const Denoiser& denoiser, const InsideProbe* probe, const GuidedModel* guided)
      : state_(state), denoiser_(denoiser), schedule_(denoiser.schedule()), probe_(probe), guided_(guided) {}
  Image predicted(size_t at, size_t level) const override { return look(state_.x_0, at, level); }
  Image noisy(size_t at, size_t level) const override { return look(state_.x_t, at, level); }
  Image predicted_by(GuidanceHalf half, size_t at, size_t level) const override {
    if (guided_ == nullptr) return {};
    const GuidedModel::Halves& halves = guided_->halves();
    const auto& predictions = half == GuidanceHalf::kConditional ? halves.conditional : halves.unconditional;
    if (predictions.empty()) return {};
    return look(denoiser_.pictures_of(predictions, halves.x_t, halves.time + 1), at, level);
  }
  std::vector<AttentionMap> attention(size_t at) const override {
    if (probe_ == nullptr) return {};
    // With guidance the prompts are the second half of the rows.
    const bool both = guided_ != nullptr && !guided_->halves().conditional.empty();
    return probe_->attention(at + (both ? count : 0));
  }
  std::vector<BlockTime> block_times() const override {
    return probe_ == nullptr ? std::vector<BlockTime>() : probe_->block_times();
  }

 private:
  Image look(const std::vector<at::Tensor>& levels, size_t at, size_t level) const {
    if (level >= levels.size() || at >= count) fail("a step has ", levels.size(), " levels and ", count, " pictures");
    std::vector<at::Tensor> one;
    for (const at::Tensor& t : levels) one.push_back(t.narrow(0, static_cast<int64_t>(at), 1));
    return images_of(to_images(one, schedule_, /*clip=*/true)[level]).front();
  }

  const SampleState& state_;
  const Denoiser& denoiser_;
  const Schedule& schedule_;
  const InsideProbe* probe_;
  const GuidedModel* guided_;
};

// The pictures that are made together.
struct Batch {
  size_t first = 0, count = 0;
  TextEmbedding text;  // 2 count rows with guidance, else count; undefined for a model without text
};

// Embeddings of prompts that are kept at a time: some thousand prompts of a full-size text model.
constexpr size_t kTextBytes = size_t{512} << 20;

// Fresh numbers for what a partial checkpoint leaves open.
void draw_missing(UNet& model) {
  constexpr uint64_t kSeed = 0;
  model.init({make_generator(kSeed), LayerInit::kZero});
}

ModelPart part_of(const std::string& name, const torch::nn::Module& module) {
  ModelPart part;
  part.name = name;
  part.type = module.name();
  part.type.erase(0, part.type.rfind(':') + 1);  // no find: npos + 1 is 0
  for (const auto& parameter : module.parameters(/*recurse=*/false)) part.parameters += parameter.numel();
  for (const auto& child : module.named_children()) {
    part.parts.push_back(part_of(child.key(), *child.value()));
    part.parameters += part.parts.back().parameters;
  }
  return part;
}

void check_settings(const SampleConfig& sample) {
  const auto check = [](bool holds, const char* name, const char* range) {
    if (!holds) fail<ConfigError>(name, ": must be ", range);
  };
  check(sample.batch_size >= 1, "batch_size", "at least 1");
  check(sample.num_inference_steps >= 1, "num_inference_steps", "at least 1");
  check(std::isfinite(sample.guidance_scale), "guidance_scale", "a finite number");
  check(sample.init_image.empty() || (sample.strength > 0 && sample.strength <= 1), "strength", "in (0, 1]");
}

}  // namespace

struct Pipeline::Impl {
  Impl(Config source, const Compat& compat_source, std::shared_ptr<SharedTextEncoders> shared_source)
      : config(std::move(source)),
        compat(compat_source),
        device(resolve_device(config.runtime.device)),
        scales(level_scales(config.model)),
        schedule(config.diffusion.sampler_config, scales),
        shared(std::move(shared_source)) {
    if (config.sample.checkpoint.empty()) fail<ConfigError>("checkpoint: no file of weights is named");
    const TensorFile file = open_weights(config.sample.checkpoint, config.sample.ema);
    text_width = text_width_of(file, config.model.levels.size());
    try {
      const auto model_of_config = make_model(config.model, text_width);
      structure = part_of(config.model.kind(), *model_of_config);
      load_weights(file, *model_of_config, config.sample.allow_partial, /*compare_only=*/true);
    } catch (const CheckpointError& error) {
      fail<CheckpointError>(error.what(), "\n  The config describes a ", config.model.kind(),
                            "; use the config that belongs to this checkpoint, or none where it holds its own.");
    }
  }

  bool guided(const SampleConfig& sample) const { return sample.guidance_scale != 1; }

  TextEncoder& text_encoder() {
    if (encoder) return *encoder;
    TextEncoderOptions options;
    options.device = device;
    options.class_width = text_width;  // the reference numbers classes from 3, which widens the vectors
    options.checkpoint = config.sample.checkpoint;
    encoder = shared ? shared->get(config.text, config.reader, options)
                     : make_text_encoder(config.text, config.reader, options);
    if (encoder->width() != text_width) {
      const int64_t width = encoder->width();
      encoder.reset();
      const bool classes = config.text.kind == TextKind::kClass;
      if (config.text.kind == TextKind::kJoint) {
        fail<ConfigError>("joint_width: ", width, ", but the checkpoint was trained with ", text_width);
      }
      fail<ConfigError>(classes ? "vocab_file: '" : "text_model: '",
                        printable(classes ? config.text.vocab_file : config.text.text_model), "' makes features ",
                        width, " wide, but the checkpoint was trained with ", text_width);
    }
    return *encoder;
  }

  // Splits the requests from `start` on into batches and reads their text, until the embeddings fill the
  // memory set aside for them: a list of any length takes no more.
  std::vector<Batch> read_text(const std::vector<PictureRequest>& requests, const SampleConfig& sample, size_t start) {
    std::vector<Batch> batches;
    const auto size = static_cast<size_t>(sample.batch_size);
    size_t bytes = 0;
    for (size_t first = start; first < requests.size() && bytes < kTextBytes; first += size) {
      Batch batch;
      batch.first = first;
      batch.count = std::min(size, requests.size() - first);
      if (text_width > 0) {
        std::vector<std::string> prompts, negatives;
        for (size_t i = first; i < first + batch.count; ++i) {
          prompts.push_back(requests[i].prompt);
          negatives.push_back(requests[i].negative_prompt);
        }
        batch.text = guided(sample) ? text_encoder().encode_pairs(negatives, prompts, config.text.pad)
                                    : text_encoder().encode(prompts, config.text.pad);
        bytes += batch.text.lm_outputs.nbytes();
      }
      batches.push_back(std::move(batch));
    }
    if (!config.text.keep_text_encoder) encoder.reset();
    return batches;
  }

  // Weights packed for one shape serve all; a first batch that is cut short by the end is the only one.
  void load_model(int64_t rows, int64_t side) {
    if (model) return;
    const c10::NoGradGuard no_grad;
    ModelOptions options;
    options.dtype = config.runtime.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
    options.channels_last = true;
    auto fresh = make_model(config.model, text_width, options);
    const bool partial = config.sample.allow_partial;
    if (partial) draw_missing(*fresh);
    const bool temporal = std::any_of(config.model.levels.begin(), config.model.levels.end(),
                                      [](const UNetConfig& level) { return level.temporal_mode; });
    const bool packs = device.is_cpu() && !temporal;
    const TensorFile file = open_weights(config.sample.checkpoint, config.sample.ema);
    if (packs && !partial) {
      load_packed(file, *fresh, rows, side, side);
    } else {
      load_weights(file, *fresh, partial);
      if (packs) fresh->pack(rows, side, side);
    }
    fresh->eval();
    if (!packs) fresh->to(device);
    if (config.runtime.cuda_graphs && !graphs) graphs = graph_maker(device);
    model = std::move(fresh);
    loaded = true;
  }

  at::Tensor start_images(const SampleConfig& sample, int64_t side, int64_t count) const {
    if (sample.init_image.empty()) return {};
    const int pixels = static_cast<int>(side);
    const Image picture = resize_and_crop(to_rgb(load_image(sample.init_image), AlphaRule::kOnWhite), pixels, pixels);
    at::Tensor values = at::empty({1, 3, side, side});
    from_pixels(picture, values.data_ptr<float>());
    return values.expand({count, 3, side, side}).contiguous().to(device);
  }

  std::vector<Picture> run_batch(const Batch& batch, const std::vector<PictureRequest>& requests,
                                 const SampleConfig& sample, int64_t side, const GenerationCallbacks& callbacks,
                                 bool& cancelled) {
    const auto count = static_cast<int64_t>(batch.count);
    GuidanceOptions guidance;
    guidance.scale = sample.guidance_scale;
    guidance.rescale = sample.guidance_rescale;
    guidance.start = sample.guidance_start;
    guidance.end = sample.guidance_end;
    guidance.output_scale = config.diffusion.model_output_scale;
    const TextEmbedding* text = text_width > 0 ? &batch.text : nullptr;
    Conditioning conditioning =
        guided(sample) ? condition_pairs(*model, text, {}, count) : model->condition(text, {}, count);
    InsideProbe probe;
    ForwardContext context;
    if (callbacks.look_inside) context.probe = &probe;
    GuidedModel guided_model(*model, std::move(conditioning), guidance, context);
    if (callbacks.look_inside) guided_model.keep_halves();
    const Denoiser denoiser(schedule, guided_model.callback(), sample.threshold);

    std::vector<uint64_t> seeds;
    for (size_t i = 0; i < batch.count; ++i) seeds.push_back(requests[batch.first + i].seed);
    SeededNoise own_noise(seeds, device);
    GeneratorNoise torch_noise(make_generator(seeds.front()), device);
    NoiseSource& noise = compat.torch_noise ? static_cast<NoiseSource&>(torch_noise) : own_noise;
    const auto sampler = make_sampler(sample, compat);

    SamplingRun run;
    run.batch = count;
    run.height = run.width = side;
    run.timesteps = make_timesteps(schedule.steps(), sample.num_inference_steps, sample.timestep_spacing, compat);
    run.start_images = start_images(sample, side, count);
    if (run.start_images.defined()) run.first_step = first_step_for_strength(run.timesteps, sample.strength);
    GraphedForward graphed(*model, graphs, static_cast<int64_t>(run.timesteps.size()) - 1 - run.first_step);
    guided_model.run_through(graphed);
    run.cancel = callbacks.cancel;
    run.before_step = [&](const SamplingStep& step) {
      guided_model.begin_step(step);
      probe.begin();
    };
    run.after_step = [&](const SamplingStep& step, const SampleState& state) {
      if (!callbacks.on_step) return;
      const bool inside = callbacks.look_inside;
      StepView view(state, denoiser, inside ? &probe : nullptr, inside ? &guided_model : nullptr);
      view.step = step.index - run.first_step + 1;
      view.steps = step.count - run.first_step;
      view.first = batch.first;
      view.count = batch.count;
      view.time = step.t - 1;
      callbacks.on_step(view);
    };
    const SamplingResult result = run_sampler(*sampler, denoiser, noise, run);
    cancelled = result.cancelled;
    for (const at::Tensor& level : result.x_t) {
      if (level.isfinite().all().item<bool>()) continue;
      fail(
          "the pictures are not finite: the weights are damaged (see `checkpoint verify`), or the precision is too "
          "low");
    }
    return cancelled ? std::vector<Picture>() : pictures(batch, requests, result, sample.output_inner);
  }

  std::vector<Picture> pictures(const Batch& batch, const std::vector<PictureRequest>& requests,
                                const SamplingResult& result, bool all_levels) const {
    std::vector<Picture> out(batch.count);
    for (size_t level = 0; level < result.x_t.size(); ++level) {
      std::vector<Image> images = images_of(result.x_t[level], compat);
      for (size_t i = 0; i < batch.count; ++i) {
        if (level == 0) {
          out[i].image = std::move(images[i]);
        } else {
          out[i].inner.push_back(std::move(images[i]));
        }
      }
    }
    std::vector<Image> joined;
    if (all_levels && result.x_t.size() > 1) joined = images_of(join_levels(result.x_t), compat);
    for (size_t i = 0; i < batch.count; ++i) {
      out[i].index = batch.first + i;
      out[i].request = requests[batch.first + i];
      if (!joined.empty()) out[i].levels = std::move(joined[i]);
    }
    return out;
  }

  Config config;
  Compat compat;
  at::Device device;
  std::vector<int64_t> scales;
  Schedule schedule;
  int64_t text_width = -1;
  std::shared_ptr<SharedTextEncoders> shared;  // may be null
  ModelPart structure;
  std::shared_ptr<TextEncoder> encoder;
  std::shared_ptr<UNet> model;
  GraphMaker graphs;                // empty: none on this device, switched off, or one has failed
  std::atomic<bool> loaded{false};  // whether there is a model, for other threads
  std::mutex tokenizer_mutex;
  bool tokenizer_opened = false;
  std::unique_ptr<const PromptTokenizer> tokenizer;
};

Pipeline::Pipeline(Config config, const Compat& compat, std::shared_ptr<SharedTextEncoders> shared)
    : impl_(std::make_unique<Impl>(std::move(config), compat, std::move(shared))) {}
Pipeline::Pipeline(Pipeline&&) noexcept = default;
Pipeline& Pipeline::operator=(Pipeline&&) noexcept = default;
Pipeline::~Pipeline() = default;

Pipeline Pipeline::from_checkpoint(const std::filesystem::path& checkpoint,
                                   const std::vector<std::filesystem::path>& yaml_files, const Overrides& overrides,
                                   std::shared_ptr<SharedTextEncoders> shared) {
  LoadRequest request;
  request.yaml_files = yaml_files;
  request.overrides = overrides;
  request.use = ConfigUse::kSample;
  request.checkpoint_json = config_json_of(TensorFile::open(checkpoint));
  if (request.checkpoint_json.empty() && yaml_files.empty()) {
    fail<ConfigError>(printable(checkpoint.string()), ": holds no config; name the model's YAML file");
  }
  LoadedConfig loaded = load(request);
  for (const std::string& warning : loaded.warnings) log_warning(warning);
  loaded.config.sample.checkpoint = checkpoint.string();
  return Pipeline(std::move(loaded.config), {}, std::move(shared));
}

const Config& Pipeline::config() const { return impl_->config; }
size_t Pipeline::levels() const { return impl_->scales.size(); }
int64_t Pipeline::text_width() const { return impl_->text_width; }
const std::vector<float>& Pipeline::gammas(size_t level) const { return impl_->schedule.gammas(level); }
int64_t Pipeline::shrinkage(size_t level) const { return impl_->scales.front() / impl_->scales.at(level); }
const ModelPart& Pipeline::structure() const { return impl_->structure; }
bool Pipeline::loaded() const { return impl_->loaded; }

int64_t Pipeline::weight_bytes() const {
  return impl_->structure.parameters * (impl_->config.runtime.precision == Precision::kBf16 ? 2 : 4);
}

void Pipeline::unload() {
  impl_->loaded = false;
  impl_->model.reset();
  if (!impl_->config.text.keep_text_encoder) impl_->encoder.reset();
}

PromptTokens Pipeline::tokens(const std::string& prompt) const {
  if (impl_->text_width <= 0) return {};
  {
    const std::lock_guard<std::mutex> lock(impl_->tokenizer_mutex);
    if (!impl_->tokenizer_opened) {
      const Config& config = impl_->config;
      impl_->tokenizer = PromptTokenizer::open(config.text, config.reader, config.sample.checkpoint);
      impl_->tokenizer_opened = true;
    }
  }
  return impl_->tokenizer ? impl_->tokenizer->tokens(prompt) : PromptTokens();
}

int64_t Pipeline::image_side(const SampleConfig& sample) const {
  const Config& config = impl_->config;
  int64_t side = sample.sample_image_size;
  if (side <= 0) side = config.reader.image_size;
  if (side <= 0) {
    for (const MicroCondition& item : parse_micro_conditioning(config.model.levels[0].micro_conditioning)) {
      if (item.name == "scale") side = static_cast<int64_t>(item.default_value);
    }
  }
  if (side <= 0) fail<ConfigError>("sample_image_size: the config does not say how large the pictures are; set it");
  for (size_t i = 0; i < config.model.levels.size(); ++i) {
    const int64_t halvings = static_cast<int64_t>(config.model.levels[i].resolution_channels.size()) - 1;
    const int64_t factor = impl_->scales[0] / impl_->scales[i] * (int64_t{1} << halvings);
    if (side % factor != 0 || side > 16384) {
      fail<ConfigError>("sample_image_size: ", side, " does not divide by ", factor,
                        ", which the model needs, or is above 16384");
    }
  }
  return side;
}

std::vector<Picture> Pipeline::generate(const std::vector<PictureRequest>& requests, const SampleConfig& sample,
                                        const GenerationCallbacks& callbacks) {
  const c10::NoGradGuard no_grad;
  check_settings(sample);
  const int64_t side = image_side(sample);
  std::vector<Picture> all;
  // Reading text and loading weights may take minutes.
  const auto is_cancelled = [&] { return callbacks.cancel != nullptr && callbacks.cancel->load(); };
  for (size_t next = 0; next < requests.size();) {
    if (is_cancelled()) return all;
    for (const Batch& batch : impl_->read_text(requests, sample, next)) {
      if (is_cancelled()) return all;
      impl_->load_model(static_cast<int64_t>(batch.count) * (impl_->guided(sample) ? 2 : 1), side);
      bool cancelled = false;
      std::vector<Picture> made = impl_->run_batch(batch, requests, sample, side, callbacks, cancelled);
      if (cancelled) return all;
      next = batch.first + batch.count;
      if (callbacks.on_pictures) {
        callbacks.on_pictures(std::move(made));
      } else {
        std::move(made.begin(), made.end(), std::back_inserter(all));
      }
    }
  }
  return all;
}

}  // namespace mdm
