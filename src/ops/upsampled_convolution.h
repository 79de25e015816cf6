// 3x3 convolution of an image made twice as large by repeating its values, without that image: each of the four
// places (even or odd row, even or odd column) of the result sees a 2x2 window of the small image, with those weights
// summed that fall on the same value. 4/9 of the multiplications. Inference on the CPU only.
#pragma once

#include <ATen/core/Tensor.h>

namespace mdm::ops {

class UpsampledConvolution {
 public:
  // weight (O, I, 3, 3), float32 or bfloat16; for inputs (B, I, H, W) of about this size.
  UpsampledConvolution(const at::Tensor& weight, const at::Tensor& bias, at::IntArrayRef input_size);

  // x (B, I, H, W) of the weight's type -> (B, O, 2H, 2W), channels_last.
  at::Tensor forward(const at::Tensor& x) const;

 private:
  int64_t out_channels_;
  at::Tensor packed_, bias_;  // of one 2x2 convolution to 4 O channels: (row, column, O)
};

}  // namespace mdm::ops
