// Convolutions on weights as they are stored, which can be trained; see onednn.h and winograd_cpu.h for packed ones.
#pragma once

#include <ATen/core/Tensor.h>

#include "mdm/ops/recomputable.h"

namespace mdm::ops {

// x (B, I, H, W), weight (O, I, h, w), bias (O).
at::Tensor plain_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             at::IntArrayRef stride, at::IntArrayRef padding);

// The same of x.value(), which the backward pass makes again. It has no second derivatives: Error where a graph of the
// backward pass is asked for.
at::Tensor plain_convolution(const Recomputable& x, const at::Tensor& weight, const at::Tensor& bias,
                             at::IntArrayRef stride, at::IntArrayRef padding);

}  // namespace mdm::ops
