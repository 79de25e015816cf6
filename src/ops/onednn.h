// oneDNN's operations on weights in its own layout, with what follows them as part of the same pass. LibTorch has them
// registered, but no header for them: this is the one place that knows their names. Inference on the CPU only.
#pragma once

#include <ATen/core/Tensor.h>

namespace mdm::ops::onednn {

enum class After { kNothing, kGelu, kRelu };  // GELU by the error function

// A weight (O, I, h, w) for convolutions of inputs of this size, and one (O, I) for products with this many rows.
at::Tensor pack_convolution(const at::Tensor& weight, at::IntArrayRef padding, at::IntArrayRef stride,
                            at::IntArrayRef input_size);
at::Tensor pack_linear(const at::Tensor& weight, int64_t rows);

at::Tensor convolution(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias, at::IntArrayRef padding,
                       at::IntArrayRef stride, After after = After::kNothing);

// sum += the convolution, in its own pass. (The form that leaves `sum` as it was copies it first, slowly.)
void add_convolution(at::Tensor& sum, const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                     at::IntArrayRef padding, at::IntArrayRef stride);

at::Tensor linear(const at::Tensor& x, const at::Tensor& packed);

}  // namespace mdm::ops::onednn
