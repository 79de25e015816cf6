// Training runs of the reference, step by step: losses, learning rates, gradient norms, and what is left of
// weights, averages and moments at the end.
#include <ATen/ATen.h>

#include <cstdio>

#include "golden_runner/diffusion_case.h"
#include "mdm/training/trainer.h"

namespace mdm::golden {
namespace {

/// The recorded batches, one after the other and then again.
class RecordedBatches : public BatchSource {
 public:
  RecordedBatches(const TensorFile& inputs, const UNet& model) : inputs_(inputs), model_(model) {
    while (inputs_.find(name("image_uint8", count_)) != nullptr) ++count_;
  }
  Batch next() override {
    const uint64_t at = step_ % count_;
    Batch batch;
    batch.step = step_++;
    batch.images = inputs_.tensor(name("image_uint8", at)).clone();
    const int64_t rows = batch.images.size(0);
    batch.total_rows = rows;
    batch.weights = at::ones({rows});
    for (int64_t i = 0; i < rows; ++i)
      batch.samples.push_back(batch.step * static_cast<uint64_t>(rows) + static_cast<uint64_t>(i));
    for (const MicroCondition& item : model_.config().micros) {  // the outermost level's names are the batch's
      const at::Tensor value = optional_tensor(inputs_, name(item.name, at));
      if (value.defined()) batch.micros[item.name] = value.to(at::kFloat);
    }
    return batch;
  }
  void seek(uint64_t step) override { step_ = step; }
  TextEmbedding text(const Batch& batch) const {
    const uint64_t at = batch.step % count_;
    return {inputs_.tensor(name("lm_outputs", at)).clone(),
            optional_tensor(inputs_, name("lm_mask", at)).to(at::kFloat),
            {}};
  }

 private:
  static std::string name(const std::string& what, uint64_t at) { return "batch." + std::to_string(at) + "." + what; }
  const TensorFile& inputs_;
  const UNet& model_;
  uint64_t count_ = 0, step_ = 0;
};

class RecordedText : public TextSource {
 public:
  RecordedText(const RecordedBatches& batches, int64_t width) : batches_(batches), width_(width) {}
  int64_t width() const override { return width_; }
  TextEmbedding embed(const Batch& batch) override { return batches_.text(batch); }

 private:
  const RecordedBatches& batches_;
  int64_t width_;
};

/// The case's settings in our terms; its folder's config.yaml has the model's.
Config training_config(const nlohmann::json& info, Config config) {
  const auto& optimizer = info.at("optimizer");
  TrainerConfig& trainer = config.trainer;
  trainer.use_adamw = optimizer.at("class") == "AdamW";
  trainer.lr = optimizer.at("lr");
  trainer.adam_beta1 = optimizer.at("betas").at(0);
  trainer.adam_beta2 = optimizer.at("betas").at(1);
  trainer.adam_eps = optimizer.at("eps");
  trainer.weight_decay = optimizer.at("weight_decay");
  trainer.warmup_steps = info.at("warmup_steps");
  trainer.gradient_clip_norm = info.at("gradient_clip_norm");
  trainer.num_gradient_accumulations = info.at("num_gradient_accumulations");
  trainer.num_training_steps = info.at("steps");
  trainer.ema_decay = info.at("ema").at("decay");
  trainer.ema_warmup = false;
  return config;
}

/// 99.9 % of all elements within `bound`, and all of them within `limit` (Adam may turn tiny gradients around).
void compare_all(const std::string& what, const std::vector<NamedTensor>& own, const TensorFile& expected, double bound,
                 double limit, Report& report) {
  int64_t total = 0, outside = 0;
  size_t found = 0;
  for (const NamedTensor& item : own) {
    if (expected.find(item.name) == nullptr) {
      report.fail(what + ": the case lacks " + item.name);
      continue;
    }
    ++found;
    const at::Tensor wanted = expected.tensor(item.name);
    total += wanted.numel();
    outside += ((item.tensor - wanted).abs() > bound).sum().item<int64_t>();
    report.compare(what + " " + item.name, item.tensor, wanted, limit, 0);
  }
  report.require(found == expected.entries().size(), what, "has other tensors than the case");
  report.require(outside * 1000 <= total, what,
                 std::to_string(outside) + " of " + std::to_string(total) + " elements are off by more than " +
                     std::to_string(bound));
}

/// What the trainer draws, drawn again from the same seed, must be what the reference drew (noise has the memory
/// layout of its pictures, colours last).
void compare_draws(const std::filesystem::path& path, const nlohmann::json& info, Report& report) {
  const TensorFile draws = TensorFile::open(path / "draws.safetensors");
  at::Generator generator = make_generator(info.at("torch_cpu_seed").get<uint64_t>());
  for (int64_t step = 0; step < info.at("steps").get<int64_t>(); ++step) {
    for (const auto& draw : info.at("draws_per_step")) {
      char name[64];
      std::snprintf(name, sizeof name, "step.%02d.draw.%d", static_cast<int>(step), draw.at("i").get<int>());
      const auto shape = draw.at("shape").get<std::vector<int64_t>>();
      const bool times = draw.at("fn") == "randint";
      const at::Tensor own =
          times ? at::randint(draw.at("range").at(0), draw.at("range").at(1), shape, generator,
                              at::TensorOptions().dtype(at::kLong))
                : at::empty({shape[0], shape[2], shape[3], shape[1]}).permute({0, 3, 1, 2}).normal_(0, 1, generator);
      report.exact(name, own, draws.tensor(name));
    }
  }
}

}  // namespace

void check_train(const std::filesystem::path& path, const Context&, Report& report) {
  const nlohmann::json info = read_json(path / "case.json");
  LoadedModel loaded = load_case_model(path);
  const Config config = training_config(info, loaded.config);
  const TensorFile inputs = TensorFile::open(path / "inputs.safetensors");
  RecordedBatches batches(inputs, *loaded.model);
  RecordedText text(batches, config.model.levels[0].conditioning_feature_dim);
  TrainerParts parts;
  parts.model = loaded.model.get();
  parts.data = &batches;
  parts.text = &text;
  parts.compat.torch_noise = parts.compat.reference_lr = parts.compat.unscaled_targets = true;
  parts.compat.ema_copies = info.at("ema").at("warmup_steps");
  Trainer trainer(config, info.at("torch_cpu_seed").get<uint64_t>(), parts);

  constexpr double kLoss = 2e-4, kNorm = 1e-3, kRate = 1e-12, kWeights = 2e-4, kExampleFloor = 1e-6;
  for (const auto& logged : info.at("log")) {
    const StepReport step = trainer.step();
    const std::string name = "step " + std::to_string(logged.at("step").get<int>()) + " ";
    report.compare(name + "loss", step.loss, logged.at("loss"), 0, kLoss);
    report.compare(name + "lr", step.lr, logged.at("lr_used"), 0, kRate);
    report.compare(name + "gradient norm", step.gradient_norm, logged.at("grad_norm_before_clip"), 0, kNorm);
    report.exact(name + "times", step.times.at(0),
                 at::tensor(logged.at("times").get<std::vector<int64_t>>(), at::kLong));
    report.compare(name + "losses", step.losses.at(0).to(at::kDouble),
                   at::tensor(logged.at("losses").get<std::vector<double>>(), at::kDouble), kExampleFloor, kLoss);
  }
  compare_draws(path, info, report);
  const double limit = static_cast<double>(info.at("steps").get<int>()) * config.trainer.lr;
  const TensorFile moments = TensorFile::open(path / "moments.safetensors");
  compare_all("weights", trainer.arena().weights(), TensorFile::open(path / "final.safetensors"), kWeights, limit,
              report);
  // Averages move by 1 - decay of what the weights move; beside that there is the rounding of 12 float32 steps.
  constexpr double kRounding = 1.5e-6;
  const double share =
      parts.compat.ema_copies > 0 ? 1 : (1 - config.trainer.ema_decay) * info.at("steps").get<double>();
  compare_all("averages", trainer.arena().ema(), TensorFile::open(path / "ema.safetensors"),
              kWeights * share + kRounding, limit * share + kRounding, report);
  for (const NamedTensor& item : trainer.arena().moments()) {
    if (moments.find(item.name) == nullptr) {
      report.fail("the case lacks " + item.name);
      continue;
    }
    const at::Tensor wanted = moments.tensor(item.name);
    report.compare(item.name, item.tensor, wanted, kNorm * wanted.abs().max().item<double>() + 1e-9, kNorm);
  }
}

}  // namespace mdm::golden
