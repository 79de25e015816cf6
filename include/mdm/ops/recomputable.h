// Tensors that are cheaper to make again than to keep.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace mdm::ops {

/// A tensor by how it is made. A convolution keeps its input for the backward pass; given a Recomputable it keeps only
/// what its input is made from, and makes it again. Where no gradients are recorded when a Recomputable is constructed,
/// it is made at once, and what it was made from is let go.
class Recomputable {
 public:
  /// Makes the tensor of `from`, the same up to rounding each time, and records gradients where that is on. It owns
  /// what it captures, since the backward pass calls it later, and maybe on another thread.
  using Maker = std::function<at::Tensor(at::TensorList from)>;

  /// `from`: defined tensors, all that gradients are to flow to; they are not to be changed before the backward pass.
  Recomputable(Maker make, std::vector<at::Tensor> from);
  /// One that is there, and is kept.
  explicit Recomputable(const at::Tensor& value);

  at::Tensor value() const { return make_(from_); }  ///< made anew by each call, unless it was made at once
  const Maker& maker() const { return make_; }
  const std::vector<at::Tensor>& from() const { return from_; }

 private:
  Maker make_;
  std::vector<at::Tensor> from_;
};

}  // namespace mdm::ops
