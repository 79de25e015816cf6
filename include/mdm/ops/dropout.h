// Dropout whose mask is addressed, not drawn from a global generator.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mdm/core/random.h"

namespace mdm::ops {

/// Where a forward pass in training gets its dropout masks from.
struct DropoutSource {
  RandomAddress address;          ///< seed, attempt and step; sample and layer are filled in here
  std::vector<uint64_t> samples;  ///< global index of each row of the batch
};

/// x (B, ...) with each element kept with probability 1 - p and divided by it, else 0. The mask of a row
/// depends on (seed, attempt, step, its sample, layer) alone. `rows`: x is that of the first so many samples
/// (levels of a mixed batch); -1: of all. B may be a multiple of that (frames of one sample, one after the other).
at::Tensor dropout(const at::Tensor& x, double p, const DropoutSource& source, uint32_t layer, int64_t rows = -1);

}  // namespace mdm::ops
