// Quantiles of magnitudes, for thresholds of pictures.
#pragma once

#include <ATen/core/Tensor.h>

namespace mdm::ops {

/// x (B, ...) float32 -> (B): the quantile `q` in [0, 1] of |x| of each row, linear between the two nearest ranks, the
/// rank in float32 as torch.quantile has it; NaN where a row holds one. Rows hold at least one number. On a GPU by
/// radix selection, and nothing waits.
at::Tensor abs_quantile(const at::Tensor& x, float q);

/// Its definition by ATen; for rows of at most 16 million numbers.
at::Tensor abs_quantile_composition(const at::Tensor& x, float q);

}  // namespace mdm::ops
