#include "training/validation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <exception>

#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/diffusion/noise.h"
#include "training/evaluation_mode.h"
#include "training/training_images.h"

namespace mdm {
namespace {

constexpr uint64_t kValidationSeed = 0x76616c6964;  // no run's own
constexpr size_t kQuartiles = 4;

// A time out of the i-th quarter of all times.
int64_t time_of(uint64_t sample, int64_t steps) {
  const auto quartile = static_cast<int64_t>(sample % kQuartiles);
  const int64_t first = steps * quartile / 4, last = steps * (quartile + 1) / 4;
  const RandomAddress address{kValidationSeed, 0, 0, sample, RandomStream::kTime, 0};
  return std::min(
      first + static_cast<int64_t>(random_below(address, 0, static_cast<uint64_t>(std::max<int64_t>(last - first, 1)))),
      steps - 1);
}

// What is added up over batches and processes.
struct Totals {
  enum Entry { kSums = 0, kCounts = kQuartiles, kStopped = 2 * kQuartiles, kFailed, kEntries };
  at::Tensor values = at::zeros({kEntries}, at::kDouble);
  double& operator[](size_t entry) { return values.mutable_data_ptr<double>()[entry]; }
};

// Losses of one batch, of which the first sample is number `first`.
void add_batch(const Batch& batch, uint64_t first, const DiffusionLoss& loss, UNet& model, TextSource* text,
               at::Device device, Totals& totals) {
  const Schedule& schedule = loss.schedule();
  const at::Tensor images = training_images(batch.images, device);
  std::vector<uint64_t> samples;
  std::vector<int64_t> times;
  for (int64_t row = 0; row < batch.size(); ++row) {
    samples.push_back(first + static_cast<uint64_t>(row));
    times.push_back(time_of(samples.back(), schedule.steps()));
  }
  std::vector<at::Tensor> noise;
  for (size_t level = 0; level < schedule.levels(); ++level) {
    const int64_t ratio = schedule.scales()[0] / schedule.scales()[level];
    noise.push_back(draw_noise({kValidationSeed, 0, 0}, samples, level,
                               {images.size(1), images.size(2) / ratio, images.size(3) / ratio}, device));
  }
  const TrainingInputs inputs = loss.prepare(images, at::tensor(times, at::kLong).to(device), noise);
  std::optional<TextEmbedding> features;
  if (text != nullptr) features = text->embed(batch);
  const Conditioning conditioning = model.condition(features ? &*features : nullptr, batch.micros, batch.size());
  const at::Tensor losses =
      loss(inputs, model.forward(inputs.x_t, inputs.times, conditioning)).per_example.to(at::kCPU, at::kDouble);
  for (int64_t row = 0; row < batch.size(); ++row) {
    if (!(batch.weights[row].item<float>() > 0)) continue;
    const size_t quartile = samples[static_cast<size_t>(row)] % kQuartiles;
    totals[Totals::kSums + quartile] += losses[row].item<double>();
    totals[Totals::kCounts + quartile] += 1;
  }
}

}  // namespace

std::optional<ValidationLoss> validate(const Config& config, int64_t batches, UNet& model, ParameterArena& arena,
                                       BatchSource& data, TextSource* text, at::Device device, ProcessGroup& group,
                                       const std::atomic<bool>* stop) {
  const EvaluationMode mode(model, arena);
  DiffusionConfig plain = config.diffusion;
  plain.use_vdm_loss_weights = false;
  plain.mixed_ratio.clear();  // every sample on every level
  const DiffusionLoss loss(plain, config.model, device);
  Totals totals;
  std::exception_ptr trouble;
  try {
    data.seek(0);
    uint64_t sample = 0;
    for (int64_t i = 0; i < batches; ++i) {
      if (stop != nullptr && stop->load()) {
        totals[Totals::kStopped] = 1;
        break;
      }
      const Batch batch = data.next();
      if (i % group.size() == group.rank()) add_batch(batch, sample, loss, model, text, device, totals);
      sample += static_cast<uint64_t>(batch.size());
    }
  } catch (const std::exception&) {  // the others wait for this process's sums all the same
    trouble = std::current_exception();
    totals[Totals::kFailed] = 1;
  }
  at::Tensor values = totals.values.to(device);
  group.sum(values, "sum of validation losses");
  totals.values = values.to(at::kCPU);
  if (trouble) std::rethrow_exception(trouble);
  if (totals[Totals::kFailed] > 0) fail("validation has failed in another process");
  if (totals[Totals::kStopped] > 0) return std::nullopt;
  ValidationLoss out;
  double sum = 0, count = 0;
  for (size_t q = 0; q < kQuartiles; ++q) {
    const double of_quartile = totals[Totals::kCounts + q];
    if (of_quartile > 0) out.quartiles[q] = totals[Totals::kSums + q] / of_quartile;
    sum += totals[Totals::kSums + q];
    count += of_quartile;
  }
  if (count == 0) return std::nullopt;
  out.mean = sum / count;
  return out;
}

}  // namespace mdm
