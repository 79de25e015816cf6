// adamw_ema_step: the composition that defines it, and the choice of a faster back end.
#include <ATen/TensorOperators.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"
#include "mdm/ops/optimizer.h"
#include "ops/adamw_ema_composition.h"
#include "ops/adamw_ema_cpu.h"

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
  check_buffers(b);
  if (s.update < 1) fail("adamw_ema_step: the number of the update is ", s.update, "; they count from 1");
  if (!b.weights.is_cpu()) return adamw_ema_step_composition(b, s);
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
  AdamPointers pointers;
  pointers.weights = floats(b.weights);
  pointers.gradients = b.gradients.const_data_ptr<float>();
  pointers.exp_avg = floats(b.exp_avg);
  pointers.exp_avg_sq = floats(b.exp_avg_sq);
  pointers.ema = floats(b.ema);
  pointers.compute = b.compute.defined() ? static_cast<uint16_t*>(b.compute.mutable_data_ptr()) : nullptr;
  adamw_ema_cpu(pointers, numbers, b.weights.numel());
}

double sum_of_squares(const at::Tensor& values) {
  if (values.dim() != 1 || !values.is_contiguous() || values.scalar_type() != at::kFloat) {
    fail("sum_of_squares: the values must be flat float32");
  }
  if (!values.is_cpu()) return sum_of_squares_composition(values, kCompositionSlice);
  return sum_of_squares_cpu(values.const_data_ptr<float>(), values.numel());
}

}  // namespace mdm::ops
