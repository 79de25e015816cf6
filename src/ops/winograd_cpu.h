// 3x3 convolution of channels_last float32 images with fewer multiplications: Winograd's minimal filtering
// F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308), 2.25 times fewer; and 4 times fewer for one that follows
// a nearest-neighbour upsampling by 2, of which no upsampled image is made. Inference only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace mdm::ops {

class WinogradConvolution {
 public:
  // Whether it is worth having for a weight (O, I, 3, 3), stride 1, padding 1, and inputs (B, I, H, W): it
  // needs 16 instead of 9 numbers per filter (9 when upsampled), and channels enough for products of matrices.
  static bool suits(const at::Tensor& weight, at::IntArrayRef input_size, bool upsampled);

  WinogradConvolution(const at::Tensor& weight, at::IntArrayRef input_size, bool upsampled);

  // x (B, I, H, W) float32, bias (O) -> (B, O, H, W) channels_last; twice as high and wide when upsampled.
  // Sizes may differ from those given before. `added`: like the result, is added to it; undefined: nothing.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& added = {}) const;

 private:
  int64_t in_channels_, out_channels_;
  bool upsampled_;
  std::vector<at::Tensor> weights_;  // per frequency (O, I), in oneDNN's layout
};

}  // namespace mdm::ops
