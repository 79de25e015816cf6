// sampler_step: the composition that defines it, and the choice of a back end.
#include "mdm/ops/sampler_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/ops/quantile.h"
#include "ops/sampler_step_cpu.h"
#if MDM_HAS_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/sampler_step_cuda.h"
#endif

namespace mdm::ops {
namespace {

bool pairs(const SamplerRule& rule) { return rule.guidance != 1; }

void check_level(const SamplerLevel& level, const SamplerRule& rule, const StepNoise& noise) {
  std::vector<int64_t> wanted = level.x_t.sizes().vec();
  if (wanted.size() != 4) fail("sampler_step: x_t is ", level.x_t.sizes(), ", not (B, C, H, W)");
  if (noise.seeds.defined() && (noise.seeds.dim() != 1 || noise.seeds.size(0) != wanted[0])) {
    fail("sampler_step: there are ", noise.seeds.sizes(), " seeds for ", wanted[0], " images");
  }
  if (level.noise.defined() && level.noise.sizes() != level.x_t.sizes()) {
    fail("sampler_step: the noise is ", level.noise.sizes(), ", x_t is ", level.x_t.sizes());
  }
  if (pairs(rule)) wanted[0] *= 2;
  if (level.prediction.sizes() != at::IntArrayRef(wanted)) {
    fail("sampler_step: the prediction is ", level.prediction.sizes(), ", x_t is ", level.x_t.sizes());
  }
}

at::Tensor drawn(const StepNoise& noise, size_t layer, const at::Tensor& like) {
  const at::Tensor seeds = noise.seeds.to(at::kCPU, at::kLong).contiguous();
  const at::Tensor out = at::empty(like.sizes(), at::TensorOptions().dtype(at::kFloat));
  const int64_t numbers = out.numel() / std::max<int64_t>(out.size(0), 1);
  for (int64_t i = 0; i < out.size(0); ++i) {
    RandomAddress address;
    address.seed = static_cast<uint64_t>(seeds.const_data_ptr<int64_t>()[i]);
    address.step = noise.step;
    address.stream = RandomStream::kStep;
    address.layer = static_cast<uint32_t>(layer);
    random_normal(address, 0, out.mutable_data_ptr<float>() + i * numbers, static_cast<size_t>(numbers));
  }
  return out.to(like.options());
}

at::Tensor x_0_composition(Predicts predicts, const at::Tensor& p, const at::Tensor& x_t, double gamma) {
  const double a = std::sqrt(gamma), s = std::sqrt(1 - gamma);
  switch (predicts) {
    case Predicts::kX0: return p;
    case Predicts::kEps: return (x_t - p * s) / a;
    case Predicts::kV: break;
  }
  return x_t * a - p * s;
}

SteppedLevel composed(const SamplerLevel& level, size_t layer, const SamplerRule& rule, const StepNoise& noise) {
  at::Tensor p = level.prediction;
  if (pairs(rule)) {
    const int64_t batch = level.x_t.size(0);
    const at::Tensor unconditional = p.narrow(0, 0, batch);
    p = unconditional + (p.narrow(0, batch, batch) - unconditional) * rule.guidance;
  }
  SteppedLevel out;
  out.x_0 = threshold(x_0_composition(rule.predicts, p, level.x_t, level.gamma), rule.threshold, level.image_scale);
  if (!rule.advances) return out;
  out.x_next = out.x_0 * level.next_x_0 + level.x_t * level.next_x_t;
  if (level.next_noise != 0 && (level.noise.defined() || noise.seeds.defined())) {
    const at::Tensor added = level.noise.defined() ? level.noise : drawn(noise, layer, level.x_t);
    out.x_next = out.x_next + added * level.next_noise;
  }
  return out;
}

// What the kernels can take: float32 on a device that has one, the prediction with rows of positions.
bool suits_kernels(const std::vector<SamplerLevel>& levels, const StepNoise& noise) {
  for (const SamplerLevel& level : levels) {
    const at::Device device = level.x_t.device();
#if MDM_HAS_CUDA
    if (!device.is_cpu() && !(device.is_cuda() && levels.size() <= kMostSamplerLevels)) return false;
#else
    if (!device.is_cpu()) return false;
#endif
    for (const at::Tensor* t : {&level.x_t, &level.prediction, &level.noise}) {
      if (!t->defined()) continue;
      if (t->scalar_type() != at::kFloat || t->device() != device) return false;
      if (c10::GradMode::is_enabled() && t->requires_grad()) return false;
    }
    if (noise.seeds.defined() && (noise.seeds.device() != device || noise.seeds.scalar_type() != at::kLong))
      return false;
  }
  return true;
}

// A call's tensors, kept while the kernels use them.
class SamplerCall {
 public:
  SamplerCall(const std::vector<SamplerLevel>& levels, const SamplerRule& rule, const StepNoise& noise) : rule_(rule) {
    plan_.predicts = rule.predicts;
    plan_.clips = rule.threshold.bounds == Bounds::kClip;
    plan_.guided = pairs(rule);
    plan_.guidance = static_cast<float>(rule.guidance);
    plan_.step = noise.step;
    if (noise.seeds.defined()) {
      seeds_ = noise.seeds.contiguous();
      plan_.seeds = reinterpret_cast<const uint64_t*>(seeds_.const_data_ptr<int64_t>());
    }
    for (const SamplerLevel& level : levels) add(level);
  }

  std::vector<SteppedLevel> run() {
    if (rule_.threshold.bounds != Bounds::kQuantile) {
      launch(Stage::kWhole);
      return out_;
    }
    launch(Stage::kPredict);
    for (size_t i = 0; i < out_.size(); ++i) {
      if (out_[i].x_0.numel() == 0) continue;
      bounds_.push_back(abs_quantile(out_[i].x_0, rule_.threshold.quantile).clamp_(1, rule_.threshold.largest));
      arguments_[i].bounds = bounds_.back().const_data_ptr<float>();
    }
    launch(Stage::kFinish);
    return out_;
  }

 private:
  void add(const SamplerLevel& level) {
    const at::Tensor x_t = kept(level.x_t.contiguous());
    at::Tensor p = level.prediction;
    if (p.size(3) > 1 && p.size(2) > 1 && p.stride(2) != p.size(3) * p.stride(3)) p = p.contiguous();
    kept(p);
    SteppedLevel out;
    out.x_0 = at::empty(x_t.sizes(), x_t.options());
    if (rule_.advances) out.x_next = at::empty(x_t.sizes(), x_t.options());
    SamplerArguments a;
    a.x_t = x_t.const_data_ptr<float>();
    a.prediction = p.const_data_ptr<float>();
    if (level.noise.defined()) a.noise = kept(level.noise.contiguous()).const_data_ptr<float>();
    a.x_0 = out.x_0.mutable_data_ptr<float>();
    a.x_next = rule_.advances ? out.x_next.mutable_data_ptr<float>() : nullptr;
    a.batch = x_t.size(0);
    a.channels = x_t.size(1);
    a.positions = x_t.size(2) * x_t.size(3);
    a.row_stride = p.stride(0);
    a.channel_stride = p.stride(1);
    a.position_stride = p.size(3) > 1 ? p.stride(3) : p.stride(2);
    a.signal = static_cast<float>(std::sqrt(level.gamma));
    a.deviation = static_cast<float>(std::sqrt(1 - level.gamma));
    a.image_scale = static_cast<float>(level.image_scale);
    a.next_x_0 = static_cast<float>(level.next_x_0);
    a.next_x_t = static_cast<float>(level.next_x_t);
    a.next_noise = static_cast<float>(level.next_noise);
    a.layer = static_cast<uint32_t>(arguments_.size());
    arguments_.push_back(a);
    out_.push_back(std::move(out));
  }

  const at::Tensor& kept(const at::Tensor& t) { return tensors_.emplace_back(t); }

  void launch(Stage stage) {
    plan_.stage = stage;
#if MDM_HAS_CUDA
    if (!tensors_.empty() && tensors_.front().is_cuda()) {
      const c10::cuda::CUDAGuard guard(tensors_.front().device());
      return sampler_step_cuda(arguments_, plan_, c10::cuda::getCurrentCUDAStream());
    }
#endif
    for (const SamplerArguments& level : arguments_) sampler_step_cpu(level, plan_);
  }

  SamplerRule rule_;
  SamplerPlan plan_;
  at::Tensor seeds_;
  std::vector<at::Tensor> tensors_, bounds_;
  std::vector<SamplerArguments> arguments_;
  std::vector<SteppedLevel> out_;
};

}  // namespace

at::Tensor threshold(const at::Tensor& x_0, const ThresholdRule& rule, double image_scale) {
  if (rule.bounds == Bounds::kNone) return x_0;
  at::Tensor out = image_scale == 1 ? x_0 : x_0 * image_scale;
  if (rule.bounds == Bounds::kClip) {
    out = out.clamp(-1, 1);
  } else {
    const at::Tensor values = out.to(at::kFloat);
    const at::Tensor q = abs_quantile(values, rule.quantile).clamp(1, rule.largest).view({-1, 1, 1, 1});
    out = (at::maximum(at::minimum(values, q), -q) / q).to(x_0.scalar_type());
  }
  return image_scale == 1 ? out : out / image_scale;
}

std::vector<SteppedLevel> sampler_step_composition(const std::vector<SamplerLevel>& levels, const SamplerRule& rule,
                                                   const StepNoise& noise) {
  std::vector<SteppedLevel> out;
  for (size_t i = 0; i < levels.size(); ++i) {
    check_level(levels[i], rule, noise);
    out.push_back(composed(levels[i], i, rule, noise));
  }
  return out;
}

std::vector<SteppedLevel> sampler_step(const std::vector<SamplerLevel>& levels, const SamplerRule& rule,
                                       const StepNoise& noise) {
  if (!suits_kernels(levels, noise)) return sampler_step_composition(levels, rule, noise);
  for (const SamplerLevel& level : levels) check_level(level, rule, noise);
  RECORD_FUNCTION("mdm::sampler_step", std::vector<c10::IValue>());
  return SamplerCall(levels, rule, noise).run();
}

}  // namespace mdm::ops
