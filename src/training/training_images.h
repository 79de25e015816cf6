// Pixels as training sees them.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

namespace mdm {

// (B, S, S, 3) bytes, scaled as the reference does: (value - 127) / 128, (B, 3, S, S) float32.
inline at::Tensor training_images(const at::Tensor& bytes, at::Device device) {
  return bytes.to(device).permute({0, 3, 1, 2}).to(at::kFloat).sub_(127).div_(128);
}

}  // namespace mdm
