// From the tensors of a run to pictures.
#include "mdm/diffusion/output.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include "mdm/core/error.h"

namespace mdm {
namespace {

/// (B, C, H, W), a square of side x side frames -> every step*step-th frame, as a square again.
at::Tensor keep_frames(const at::Tensor& x, int64_t side, int64_t step) {
  const int64_t batch = x.size(0), channels = x.size(1), h = x.size(2) / side, w = x.size(3) / side;
  const int64_t kept = side / step;
  return x.reshape({batch, channels, side, h, side, w})
      .permute({0, 2, 4, 1, 3, 5})  // (B, side, side, C, h, w)
      .reshape({batch, side * side, channels, h, w})
      .slice(1, 0, side * side, step * step)
      .reshape({batch, kept, kept, channels, h, w})
      .permute({0, 3, 1, 4, 2, 5})
      .reshape({batch, channels, kept * h, kept * w});
}

}  // namespace

std::vector<at::Tensor> level_images(const at::Tensor& images, const std::vector<int64_t>& scales,
                                     const std::vector<bool>& frames) {
  if (images.dim() != 4 || images.size(2) % scales[0] != 0 || images.size(3) % scales[0] != 0) {
    fail("images ", images.sizes(), " can't be divided into levels: height and width must be multiples of ", scales[0]);
  }
  std::vector<at::Tensor> out = {images};
  for (size_t i = 1; i < scales.size(); ++i) {
    const int64_t ratio = scales[i - 1] / scales[i];
    const bool in_time = i - 1 < frames.size() && frames[i - 1];
    out.push_back(in_time ? keep_frames(out.back(), scales[i - 1], ratio) : at::avg_pool2d(out.back(), {ratio, ratio}));
  }
  return out;
}

std::vector<at::Tensor> to_images(const std::vector<at::Tensor>& levels, const Schedule& schedule, bool clip) {
  std::vector<at::Tensor> out;
  for (size_t i = 0; i < levels.size(); ++i) {
    const double scale = schedule.signal_scale(i);
    at::Tensor image = scale == 1 ? levels[i] : levels[i] * scale;
    out.push_back(clip ? image.clamp(-1, 1) : image);
  }
  return out;
}

at::Tensor join_levels(const std::vector<at::Tensor>& images) {
  if (images.empty()) fail("there are no levels to join");
  const at::Tensor& highest = images.front();
  std::vector<at::Tensor> parts;
  for (size_t i = images.size(); i-- > 1;) {
    parts.push_back(at::upsample_bilinear2d(images[i], {highest.size(2), highest.size(3)}, /*align_corners=*/false));
  }
  parts.push_back(highest);
  return at::cat(parts, 3);
}

at::Tensor to_bytes(const at::Tensor& images, const Compat& compat) {
  at::Tensor values = (images.to(at::kFloat) * 128 + 127).clamp(0, 255);
  if (!compat.truncated_pixels) values = values.round();
  return values.to(at::kByte).permute({0, 2, 3, 1}).contiguous();
}

}  // namespace mdm
