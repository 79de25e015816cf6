// The Inception-v3 whose features FID compares (Szegedy et al. 2015, arXiv 1512.00567): TensorFlow's network of
// 2015-12-05 as PyTorch has it in the file `pt_inception-2015-12-05`.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>

namespace mdm {

/// Immutable after load(); may be shared between threads. Inference on the CPU, batch normalisation folded into the
/// convolutions.
class InceptionV3 {
 public:
  static constexpr int kSide = 299;  ///< of its pictures, in pixels

  /// The state dict of `pt_inception-2015-12-05-6726825d.pth` (or torch-fidelity's of the same content), as .pth or
  /// safetensors: NAME.conv.weight, NAME.bn.weight, ... The classifier `fc` is not needed and may be absent.
  /// CheckpointError lists what is missing, unexpected or of the wrong shape.
  static InceptionV3 load(const std::filesystem::path& file);

  InceptionV3(InceptionV3&&) noexcept;
  InceptionV3& operator=(InceptionV3&&) noexcept;
  ~InceptionV3();

  /// Whether features of this width exist: 64 (after the first pooling), 192 (the second), 768 (before Mixed_7a) or
  /// 2048 (the last).
  static bool has_width(int64_t width);

  /// x: (B, 3, 299, 299) float, from about -1 to 1 (preprocessing.h). Returns (B, width): means over the positions of
  /// the layer that is `width` wide. Nothing beyond it is computed. Error for another width.
  at::Tensor forward(const at::Tensor& x, int64_t width = 2048) const;

 private:
  struct Impl;
  explicit InceptionV3(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
