// Distances of two sets of features that are all there: KID, and precision with recall.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mdm {

struct KernelDistance {
  double mean = 0;
  double deviation = 0;     ///< over the subsets
  int64_t subsets = 0;      ///< that were drawn
  int64_t subset_size = 0;  ///< pictures of each set in one; less than asked for when a set is smaller
};

/// KID (Binkowski et al. 2018, arXiv 1801.01401): the unbiased squared maximum mean discrepancy with the kernel
/// (x.y / D + 1)^3, over subsets drawn without repetition (stream kShuffle of `seed`; where a subset is a whole set,
/// one is enough). features: (N, D). In float64. DataError for fewer than 2 pictures, or two widths.
KernelDistance kernel_distance(const at::Tensor& generated, const at::Tensor& reference, int64_t subsets,
                               int64_t subset_size, uint64_t seed);

struct PrecisionRecall {
  double precision = 0;  ///< share of generated pictures that lie within the reference's manifold
  double recall = 0;     ///< share of the reference's that lie within the generated one
};

/// Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991): a manifold is the union of the balls
/// around a set's pictures that reach to the `neighbours`-th nearest other one. DataError when a set has no more than
/// `neighbours` pictures, or for two widths.
PrecisionRecall precision_recall(const at::Tensor& generated, const at::Tensor& reference, int64_t neighbours);

}  // namespace mdm
