// Leaf layers: the modules that hold parameters. They are our own and not torch::nn's because those
// draw from the global generator when they are made, initialise hundreds of millions of numbers that a
// checkpoint then overwrites, and have no place for packed weights.
//
// A layer's parameters are uninitialised until init() or until a checkpoint is loaded.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "mdm/ops/recomputable.h"

namespace mdm {

namespace ops {
class UpsampledConvolution;
class WinogradConvolution;
}  // namespace ops

/// How a fresh layer's numbers are drawn.
enum class LayerInit {
  kDefault,      ///< PyTorch's: weight, then bias, uniform within 1/sqrt(fan-in)
  kZero,         ///< the same draws, then set to 0 (the reference's zero_module)
  kSmallNormal,  ///< the same draws, then N(0, 0.6 / sqrt(fan-in)), bias 0: where kZero would make a model whose
                 ///< output is 0, which is no use to a benchmark
};

/// y = x W^T + b over the last dimension.
class Linear : public torch::nn::Module {
 public:
  Linear(int64_t in_features, int64_t out_features, bool with_bias = true);
  at::Tensor forward(const at::Tensor& x) const;  ///< (..., in) -> (..., out)
  void init(at::Generator generator, LayerInit how = LayerInit::kDefault);

  at::Tensor weight;  ///< (out, in)
  at::Tensor bias;    ///< (out), undefined without bias
};

/// 2-d convolution with square kernels and zero padding.
class Conv2d : public torch::nn::Module {
 public:
  Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride = 1, int64_t padding = 0);
  /// (B, in, H, W) -> (B, out, H', W'). Error when the weight was packed for joined or upsampled inputs.
  at::Tensor forward(const at::Tensor& x) const;
  /// The same of x.value(), which is not kept for the backward pass; likewise where x is a Recomputable below. It has
  /// no second derivatives (Error).
  at::Tensor forward(const ops::Recomputable& x) const;
  /// forward(x) + added. `added` may be overwritten when the weight is packed: then it is one pass. x may be made of
  /// it.
  at::Tensor forward_onto(at::Tensor added, const at::Tensor& x) const;
  at::Tensor forward_onto(at::Tensor added, const ops::Recomputable& x) const;
  /// forward(x) + added, which stays as it is.
  at::Tensor forward_plus(const at::Tensor& x, const at::Tensor& added) const;
  at::Tensor forward_plus(const ops::Recomputable& x, const at::Tensor& added) const;
  /// The exact GELU of forward(x), for the convolution that comes next; in one pass, and at once, when packed.
  ops::Recomputable forward_gelu(const ops::Recomputable& x) const;
  /// forward(cat({x, rest}, 1)); a packed 1x1 convolution does not make the joined tensor, none keeps it.
  at::Tensor forward_joined(const at::Tensor& x, const at::Tensor& rest) const;
  /// forward() of x made twice as high and wide by repeating each value: (B, in, H, W) -> (B, out, 2H', 2W').
  at::Tensor forward_upsampled(const at::Tensor& x) const;
  void init(at::Generator generator, LayerInit how = LayerInit::kDefault);

  /// Replaces the weight by what is fastest for inputs of this size (oneDNN's own layout, or in float32 that
  /// of Winograd's algorithm); inference on the CPU only. The plain weight is dropped. Inputs of other sizes
  /// stay correct, only slower.
  void pack(at::IntArrayRef input_size);
  /// The same for forward_upsampled() with x of this size, which then is the only one that can be called.
  void pack_upsampled(at::IntArrayRef input_size);
  /// The same for forward_joined() of a 1x1 convolution, whose x has `first_channels`; no other can be called then.
  void pack_joined(at::IntArrayRef input_size, int64_t first_channels);
  bool packed_joined() const { return packed_rest_.defined(); }

  at::Tensor weight;  ///< (out, in, kernel, kernel)
  at::Tensor bias;    ///< (out)

 private:
  bool records_gradients() const;
  void drop_plain_weight();
  void check_packed_for_plain_inputs() const;

  std::vector<int64_t> stride_, padding_;
  // At most one kind of packed weight is there.
  at::Tensor packed_, packed_rest_;  // the latter for forward_joined(), of the further channels
  std::shared_ptr<const ops::WinogradConvolution> winograd_, winograd_upsampled_;
  std::shared_ptr<const ops::UpsampledConvolution> upsampled_;
};

/// 1-d convolution over the last dimension (frames in temporal mode).
class Conv1d : public torch::nn::Module {
 public:
  Conv1d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride, int64_t padding);
  at::Tensor forward(const at::Tensor& x) const;  ///< (B, in, T) -> (B, out, T')
  void init(at::Generator generator, LayerInit how = LayerInit::kDefault);

  at::Tensor weight;  ///< (out, in, kernel)
  at::Tensor bias;    ///< (out)

 private:
  int64_t stride_, padding_;
};

/// A group normalisation over (B, C, H, W), eps 1e-5; see ops/normalization.h for the op. Its results are cheap to make
/// from x, so convolutions that take them don't keep them.
class GroupNorm : public torch::nn::Module {
 public:
  GroupNorm(int64_t groups, int64_t channels);
  ops::Recomputable of(const at::Tensor& x) const;       ///< x's shape
  ops::Recomputable silu_of(const at::Tensor& x) const;  ///< SiLU of it
  /// silu(norm(x) * (1 + scale) + shift); scale and shift (B, C).
  ops::Recomputable silu_of(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift) const;
  /// silu_of(cat({x, rest}, 1)), without the joined tensor where that can be.
  ops::Recomputable silu_of_joined(const at::Tensor& x, const at::Tensor& rest) const;
  void init();  ///< weight 1, bias 0

  at::Tensor weight;  ///< (C)
  at::Tensor bias;    ///< (C)

 private:
  int64_t groups_;
};

/// Layer normalisation over the last dimension, eps 1e-5.
class LayerNorm : public torch::nn::Module {
 public:
  explicit LayerNorm(int64_t features);
  at::Tensor forward(const at::Tensor& x) const;  ///< same shape
  void init();                                    ///< weight 1, bias 0

  at::Tensor weight;  ///< (features)
  at::Tensor bias;    ///< (features)
};

/// Holds modules under the names "0", "1", ... as Python's ModuleList and Sequential do.
class ModuleList : public torch::nn::Module {
 public:
  template <typename T>
  std::shared_ptr<T> add(std::shared_ptr<T> module) {
    return register_module(std::to_string(next_++), std::move(module));
  }
  /// A place without parameters (an activation in a Sequential).
  void skip() { ++next_; }

 private:
  int64_t next_ = 0;
};

}  // namespace mdm
