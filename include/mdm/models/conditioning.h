// Everything about a forward pass that does not depend on the diffusion time: computed once per prompt
// when sampling, once per step in training, and handed to the model as explicit tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "mdm/ops/attention.h"

namespace mdm {

/// Values of micro-conditioning items by label, each (B) float; a label that is missing has its default.
using MicroValues = std::map<std::string, at::Tensor>;

/// See file head. B is the batch of the lowest level; higher levels of a mixed batch use its first rows.
struct Conditioning {
  at::Tensor pooled;              ///< (B, T) text embedding that is added to the time embedding; undefined without text
  at::Tensor text;                ///< (B, L, D) the text as cross-attention sees it; undefined without text
  at::Tensor mask;                ///< (B, L) bool, true where a row may look; undefined when every row looks at all L
  std::vector<at::Tensor> micro;  ///< per level, outermost first: (B, T), undefined without items
  /// Per level: keys and values of its cross-attention layers in the order in which they run.
  std::vector<std::vector<ops::KeyValue>> keys_values;

  /// The part for rows [first, first + count): views, nothing is copied.
  Conditioning rows(int64_t first, int64_t count) const;
};

}  // namespace mdm
