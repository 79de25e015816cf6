// From the tensors of a run to pictures: scales, levels side by side, bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mdm/diffusion/compat.h"
#include "mdm/diffusion/schedule.h"

namespace mdm {

/// Images of all levels from those of the highest (B, C, H, W): each by average pooling of the one above.
/// `frames`: per step down, whether it is one in time instead: the image is then a square of
/// scales[i] x scales[i] frames, and every r*r-th is kept (temporal mode); empty: none.
/// Error when the size doesn't divide.
std::vector<at::Tensor> level_images(const at::Tensor& images, const std::vector<int64_t>& scales,
                                     const std::vector<bool>& frames = {});

/// Levels of a run (on the scale of the diffusion process) on the scale of images; `clip`: to [-1, 1].
std::vector<at::Tensor> to_images(const std::vector<at::Tensor>& levels, const Schedule& schedule, bool clip);

/// All levels in one picture: resized to the highest one's size (bilinear, no aligned corners), the lowest
/// first, side by side. (B, C, H, levels * W)
at::Tensor join_levels(const std::vector<at::Tensor>& images);

/// (B, C, H, W) in [-1, 1] -> (B, H, W, C) uint8: round(128 x + 127), the inverse of how training reads
/// pixels; clamped.
at::Tensor to_bytes(const at::Tensor& images, const Compat& compat = {});

}  // namespace mdm
