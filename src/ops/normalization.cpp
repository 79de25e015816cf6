// group_norm: the composition that defines it, and the choice of a faster back end.
#include "mdm/ops/normalization.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/silu.h>
#include <c10/core/GradMode.h>

#include "ops/group_norm_cpu.h"

namespace mdm::ops {
namespace {

constexpr double kGroupNormEpsilon = 1e-5;

// (B, C) -> (B, C, 1, 1), so that it broadcasts over the positions.
at::Tensor over_positions(const at::Tensor& t) { return t.unsqueeze(-1).unsqueeze(-1); }

bool needs_gradient(const at::Tensor& t) { return t.defined() && t.requires_grad(); }

// float32 (B, C) rows for the kernel, made contiguous; undefined stays undefined.
at::Tensor modulation_rows(const at::Tensor& t) { return t.defined() ? t.to(at::kFloat).contiguous() : t; }

}  // namespace

at::Tensor group_norm_composition(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
                                  const at::Tensor& scale, const at::Tensor& shift, bool silu) {
  // Only the CPU kernel takes a bfloat16 input with float32 parameters.
  const bool cast = !x.is_cpu() && weight.scalar_type() != x.scalar_type();
  at::Tensor y = at::group_norm(x, groups, cast ? weight.to(x.scalar_type()) : weight,
                                cast ? bias.to(x.scalar_type()) : bias, kGroupNormEpsilon);
  if (scale.defined()) y = y * (1 + over_positions(scale)) + over_positions(shift);
  return silu ? at::silu(y) : y;
}

at::Tensor group_norm(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& scale, const at::Tensor& shift, bool silu) {
  const bool gradient = c10::GradMode::is_enabled() &&
                        (needs_gradient(x) || needs_gradient(weight) || needs_gradient(scale) || needs_gradient(shift));
  const bool fits = x.is_cpu() && x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) && x.numel() > 0 &&
                    (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
                    weight.scalar_type() == at::kFloat && weight.is_contiguous() && bias.is_contiguous();
  if (gradient || !fits) return group_norm_composition(x, groups, weight, bias, scale, shift, silu);

  at::Tensor y = at::empty_like(x);
  const at::Tensor scale_rows = modulation_rows(scale), shift_rows = modulation_rows(shift);
  GroupNormArguments arguments;
  arguments.batch = x.size(0);
  arguments.positions = x.size(2) * x.size(3);
  arguments.channels = x.size(1);
  arguments.groups = groups;
  arguments.epsilon = kGroupNormEpsilon;
  arguments.weight = weight.const_data_ptr<float>();
  arguments.bias = bias.const_data_ptr<float>();
  arguments.scale = scale.defined() ? scale_rows.const_data_ptr<float>() : nullptr;
  arguments.shift = scale.defined() ? shift_rows.const_data_ptr<float>() : nullptr;
  arguments.silu = silu;
  if (x.scalar_type() == at::kFloat) {
    group_norm_channels_last(arguments, x.const_data_ptr<float>(), y.mutable_data_ptr<float>());
  } else {
    group_norm_channels_last_bf16(arguments, static_cast<const uint16_t*>(x.const_data_ptr()),
                                  static_cast<uint16_t*>(y.mutable_data_ptr()));
  }
  return y;
}

}  // namespace mdm::ops
