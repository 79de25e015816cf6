// The whole chain, from pictures to weights to pictures: a tiny model learns one batch of 8 captioned pictures by
// heart and draws each of them when asked for it.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "mdm/diffusion/guidance.h"
#include "mdm/diffusion/output.h"
#include "mdm/diffusion/sampler.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

// One picture of each kind, drawn with the averaged weights: (8, S, S, 3) bytes.
at::Tensor draw_all(ToyRun& run, Trainer& trainer) {
  const c10::NoGradGuard no_grad;
  const ParameterArena::UseEma use_ema(trainer.arena());
  run.model->eval();
  std::vector<int64_t> kinds;
  std::vector<uint64_t> seeds;
  for (int64_t kind = 0; kind < kKinds; ++kind) {
    kinds.push_back(kind);
    seeds.push_back(static_cast<uint64_t>(100 + kind));
  }
  const TextEmbedding text = run.text.of_kinds(kinds);
  const MicroValues micros = {{"scale", at::full({kKinds}, static_cast<double>(side_of(run.config)))}};
  GuidedModel model(*run.model, run.model->condition(&text, micros, kKinds), {});
  const Schedule schedule(run.config.diffusion.sampler_config, level_scales(run.config.model));
  const Denoiser denoiser(schedule, model.callback());
  SeededNoise noise(seeds);
  DdimSampler sampler(0.0);
  SamplingRun sampling;
  sampling.batch = kKinds;
  sampling.height = sampling.width = side_of(run.config);
  sampling.timesteps = make_timesteps(schedule.steps(), 50, TimestepSpacing::kTrailing);
  return to_bytes(run_sampler(sampler, denoiser, noise, sampling).x_t[0]);
}

double psnr(const at::Tensor& a, const at::Tensor& b) {
  const double error = (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().item<double>();
  return 10 * std::log10(255 * 255 / error);
}

class Overfit : public ::testing::TestWithParam<Precision> {};

TEST_P(Overfit, EightPicturesComeBack) {
  Config config = tiny_config();
  config.runtime.precision = GetParam();
  config.model.levels[0].resnet_config.dropout = 0;
  config.model.levels[0].resolution_channels = {32, 32};
  config.model.levels[0].temporal_dim = 64;
  config.diffusion.sampler_config.loss_target_type = PredictionType::kVPrediction;
  config.trainer.batch_size = 2 * kKinds;
  config.trainer.lr = 0.004;
  config.trainer.lr_decay = LrDecay::kCosine;
  config.trainer.num_training_steps = 1100;
  config.trainer.ema_decay = 0.99;
  ToyRun run(config, /*learned_text=*/true);
  run.data.fixed_samples = kKinds;
  const auto trainer = run.make_trainer();
  trainer->run();
  const at::Tensor drawn = draw_all(run, *trainer);
  for (int64_t kind = 0; kind < kKinds; ++kind) {
    EXPECT_GE(psnr(drawn[kind], picture(kind, side_of(config))), 25) << "picture " << kind;
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, Overfit, ::testing::Values(Precision::kFp32));

}  // namespace
}  // namespace mdm::training_test
