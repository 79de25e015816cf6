// What may accompany a forward pass: someone who looks on, and where dropout masks come from.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "mdm/ops/dropout.h"

namespace mdm {

/// Looks at tensors as a forward pass makes them. Free when absent.
class Probe {
 public:
  virtual ~Probe() = default;
  /// Whether on_tensor shall be called for `name`; tensors that are made for probes alone (attention
  /// weights) are only made then.
  virtual bool wants(const std::string& name) = 0;
  /// Names are "<level>.<block>", level 0 being the highest resolution: "0.conv_in", "1.down_blocks.2",
  /// "1.mid_blocks.0"; the weights over text of a cross-attention layer (B, heads, N, L) are
  /// "1.down_blocks.2.attn.0.text_weights".
  virtual void on_tensor(const std::string& name, const at::Tensor& value) = 0;
};

struct ForwardContext {
  Probe* probe = nullptr;
  const ops::DropoutSource* dropout = nullptr;  ///< needed in training mode when the config has dropout
};

}  // namespace mdm
