// adamw_ema_step: the composition that defines it, and the choice of a faster back end.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"
#include "mdm/ops/optimizer.h"
#include "ops/adamw_ema_composition.h"
#include "ops/adamw_ema_cpu.h"
#include "ops/clip_factor.h"
#if MDM_HAS_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/adamw_ema_cuda.h"
#endif

namespace mdm::ops {
namespace {

at::Tensor part_of(const at::Tensor& t, int64_t first, int64_t count) {
  return t.defined() ? t.narrow(0, first, count) : t;
}

void check_buffer(const at::Tensor& t, const at::Tensor& weights, at::ScalarType dtype, const char* name) {
  if (t.dim() != 1 || t.numel() != weights.numel() || !t.is_contiguous() || t.scalar_type() != dtype ||
      t.device() != weights.device()) {
    fail("adamw_ema_step: ", name, " don't fit weights of ", weights.numel(), " numbers");
  }
}

void check_buffers(const OptimizerBuffers& b) {
  check_buffer(b.weights, b.weights, at::kFloat, "weights");
  check_buffer(b.gradients, b.weights, at::kFloat, "gradients");
  check_buffer(b.exp_avg, b.weights, at::kFloat, "first moments");
  check_buffer(b.exp_avg_sq, b.weights, at::kFloat, "second moments");
  if (b.ema.defined()) check_buffer(b.ema, b.weights, at::kFloat, "averaged weights");
  if (b.compute.defined()) check_buffer(b.compute, b.weights, at::kBFloat16, "bfloat16 weights");
}

void step_slice(const OptimizerBuffers& b, const AdamSettings& s) {
  const double correction1 = 1 - std::pow(s.beta1, static_cast<double>(s.update));
  const double correction2 = 1 - std::pow(s.beta2, static_cast<double>(s.update));
  at::Tensor weights = b.weights, exp_avg = b.exp_avg, exp_avg_sq = b.exp_avg_sq, ema = b.ema;
  const at::Tensor gradients = b.gradients * s.gradient_factor;
  exp_avg.add_(gradients - exp_avg, 1 - s.beta1);
  exp_avg_sq.mul_(s.beta2).addcmul_(gradients, gradients, 1 - s.beta2);
  if (s.weight_decay != 0) weights.mul_(1 - s.lr * s.weight_decay);
  weights.addcdiv_(exp_avg, exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(s.eps), -s.lr / correction1);
  if (ema.defined()) ema.add_(weights - ema, 1 - s.ema_decay);
  if (b.compute.defined()) b.compute.copy_(weights);
}

float* floats(const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr<float>() : nullptr; }

AdamNumbers numbers_of(const AdamSettings& s) {
  AdamNumbers numbers;
  numbers.gradient_factor = static_cast<float>(s.gradient_factor);
  numbers.blend1 = static_cast<float>(1 - s.beta1);
  numbers.beta2 = static_cast<float>(s.beta2);
  numbers.blend2 = static_cast<float>(1 - s.beta2);
  numbers.shrink = static_cast<float>(1 - s.lr * s.weight_decay);
  numbers.step_size = static_cast<float>(s.lr / (1 - std::pow(s.beta1, static_cast<double>(s.update))));
  numbers.root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(s.beta2, static_cast<double>(s.update))));
  numbers.eps = static_cast<float>(s.eps);
  numbers.ema_blend = static_cast<float>(1 - s.ema_decay);
  return numbers;
}

AdamPointers pointers_of(const OptimizerBuffers& b) {
  AdamPointers pointers;
  pointers.weights = floats(b.weights);
  pointers.gradients = b.gradients.const_data_ptr<float>();
  pointers.exp_avg = floats(b.exp_avg);
  pointers.exp_avg_sq = floats(b.exp_avg_sq);
  pointers.ema = floats(b.ema);
  pointers.compute = b.compute.defined() ? static_cast<uint16_t*>(b.compute.mutable_data_ptr()) : nullptr;
  return pointers;
}

void check_step(const OptimizerBuffers& b, const AdamSettings& s) {
  check_buffers(b);
  if (s.update < 1) fail("adamw_ema_step: the number of the update is ", s.update, "; they count from 1");
}

void check_number(const at::Tensor& t, const OptimizerBuffers& b, const char* name) {
  if (t.numel() != 1 || t.scalar_type() != at::kDouble || t.device() != b.weights.device()) {
    fail("adamw_ema_step: ", name, " must be one float64 number where the weights are");
  }
}

void check_summed(const at::Tensor& values) {
  if (values.dim() != 1 || !values.is_contiguous() || values.scalar_type() != at::kFloat) {
    fail("sum_of_squares: the values must be flat float32");
  }
}

#if MDM_HAS_CUDA
void step_on_device(const OptimizerBuffers& b, const AdamSettings& s, const DeviceClip* clip) {
  const c10::cuda::CUDAGuard guard(b.weights.device());
  ClipPointers numbers;
  if (clip != nullptr) {
    numbers = {clip->squares.const_data_ptr<double>(), clip->loss.const_data_ptr<double>(),
               clip->weight.const_data_ptr<double>(), clip->clip_norm};
  }
  adamw_ema_cuda(pointers_of(b), numbers_of(s), numbers, b.weights.numel(), c10::cuda::getCurrentCUDAStream());
}
#endif

}  // namespace

OptimizerBuffers OptimizerBuffers::narrow(int64_t first, int64_t count) const {
  return {part_of(weights, first, count),    part_of(gradients, first, count), part_of(exp_avg, first, count),
          part_of(exp_avg_sq, first, count), part_of(ema, first, count),       part_of(compute, first, count)};
}

void adamw_ema_step_composition(const OptimizerBuffers& b, const AdamSettings& s, int64_t slice) {
  const c10::NoGradGuard no_grad;
  const int64_t numbers = b.weights.numel();
  for (int64_t first = 0; first < numbers; first += slice) {
    step_slice(b.narrow(first, std::min(slice, numbers - first)), s);
  }
}

void adamw_ema_step_composition(const OptimizerBuffers& b, const AdamSettings& s) {
  adamw_ema_step_composition(b, s, kCompositionSlice);
}

double sum_of_squares_composition(const at::Tensor& values, int64_t slice) {
  const c10::NoGradGuard no_grad;
  at::Tensor sum = at::zeros({}, values.options().dtype(at::kDouble));  // on the device: one wait, at the end
  for (int64_t first = 0; first < values.numel(); first += slice) {
    const at::Tensor part = values.narrow(0, first, std::min(slice, values.numel() - first)).to(at::kDouble);
    sum.add_(part.square_().sum());
  }
  return sum.item<double>();
}

void adamw_ema_step(const OptimizerBuffers& b, const AdamSettings& s) {
  check_step(b, s);
#if MDM_HAS_CUDA
  if (b.weights.is_cuda()) return step_on_device(b, s, nullptr);
#endif
  if (!b.weights.is_cpu()) return adamw_ema_step_composition(b, s);
  adamw_ema_cpu(pointers_of(b), numbers_of(s), b.weights.numel());
}

void adamw_ema_step(const OptimizerBuffers& b, const AdamSettings& s, const DeviceClip& clip) {
  check_step(b, s);
  check_number(clip.squares, b, "the sum of squares");
  check_number(clip.loss, b, "the loss");
  check_number(clip.weight, b, "the weight");
#if MDM_HAS_CUDA
  if (b.weights.is_cuda()) return step_on_device(b, s, &clip);
#endif
  AdamSettings scaled = s;
  if (clip_factor(clip.squares.item<double>(), clip.loss.item<double>(), clip.weight.item<double>(), clip.clip_norm,
                  scaled.gradient_factor)) {
    adamw_ema_step(b, scaled);
  }
}

at::Tensor sum_of_squares_tensor(const at::Tensor& values) {
#if MDM_HAS_CUDA
  if (values.is_cuda()) {
    check_summed(values);
    const c10::cuda::CUDAGuard guard(values.device());
    const auto options = values.options().dtype(at::kDouble);
    at::Tensor sum = at::empty({1}, options);
    const at::Tensor work = at::empty({sum_of_squares_cuda_workspace(values.numel())}, options);
    sum_of_squares_cuda(values.const_data_ptr<float>(), values.numel(), sum.mutable_data_ptr<double>(),
                        work.mutable_data_ptr<double>(), c10::cuda::getCurrentCUDAStream());
    return sum;
  }
#endif
  return at::full({1}, sum_of_squares(values), values.options().dtype(at::kDouble));
}

double sum_of_squares(const at::Tensor& values) {
  check_summed(values);
#if MDM_HAS_CUDA
  if (values.is_cuda()) return sum_of_squares_tensor(values).item<double>();
#endif
  if (!values.is_cpu()) return sum_of_squares_composition(values, kCompositionSlice);
  return sum_of_squares_cpu(values.const_data_ptr<float>(), values.numel());
}

}  // namespace mdm::ops
