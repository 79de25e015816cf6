// The vision transformer DINOv2 (Oquab et al. 2023, arXiv 2304.07193), whose features FD-DINOv2 compares (Stein et al.
// 2023, arXiv 2306.04675). Files and arithmetic as in Hugging Face's transformers (models/dinov2/modeling_dinov2.py).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace mdm {

/// Immutable after load(); may be shared between threads. Float32 on the CPU.
class DinoV2 {
 public:
  static constexpr int kSide = 224;  ///< of the pictures that FD-DINOv2 is defined for

  /// A Hugging Face folder such as facebook/dinov2-large (which published numbers use): config.json and weights.
  /// ConfigError, CheckpointError as ClipModel.
  static DinoV2 load(const std::filesystem::path& folder);
  DinoV2(DinoV2&&) noexcept;
  DinoV2& operator=(DinoV2&&) noexcept;
  ~DinoV2();

  /// x: (B, 3, 224, 224) float of dinov2_input. Returns (B, width): the class token behind the last norm.
  at::Tensor forward(const at::Tensor& x) const;
  int64_t width() const;
  std::string description() const;  ///< "24 layers, 1024 wide, patches of 14"

 private:
  struct Impl;
  explicit DinoV2(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
