// Normalisation with what follows it, as one operation.
#pragma once

#include <ATen/core/Tensor.h>

namespace mdm::ops {

/// GroupNorm over (B, C, H, W), eps 1e-5, statistics in float32, then optionally * (1 + scale) + shift
/// with scale and shift (B, C), then optionally SiLU. x float32, bfloat16 or float64; weight and bias
/// (C) may be float32 for a bfloat16 x. The result has x's dtype and memory format.
at::Tensor group_norm(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& scale, const at::Tensor& shift, bool silu);

/// group_norm of cat({x, rest}, 1), which is not made where the fused kernel runs: x (B, C_1, H, W), rest
/// (B, C_2, H, W); weight, bias (C_1 + C_2). Groups may lie across both.
at::Tensor group_norm_of_joined(const at::Tensor& x, const at::Tensor& rest, int64_t groups, const at::Tensor& weight,
                                const at::Tensor& bias, bool silu);

/// The definition of group_norm as a composition of ATen calls: its autograd, and its oracle in tests.
at::Tensor group_norm_composition(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
                                  const at::Tensor& scale, const at::Tensor& shift, bool silu);

}  // namespace mdm::ops
