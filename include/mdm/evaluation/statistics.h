// Mean and covariance of features: gathered row by row, stored as .npz, and compared.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace mdm {

class ProcessGroup;

/// What is known of a set of pictures when its features are forgotten. All float64.
struct FeatureStatistics {
  int64_t count = 0;      ///< pictures; 0: not known (a file that does not say it)
  at::Tensor mean;        ///< (D)
  at::Tensor covariance;  ///< (D, D), with divisor count - 1, as numpy.cov
  int64_t width() const { return mean.size(0); }
};

/// Adds up features and their products in float64, so that a set of any size takes D^2 numbers.
class MomentSum {
 public:
  explicit MomentSum(int64_t width);

  /// rows: (N, D), any floating point. Error when they are not D wide or not finite.
  void add(const at::Tensor& rows);
  /// From here on the sum of all processes.
  void sum_over(ProcessGroup& group, const std::string& what);

  int64_t count() const { return count_; }
  int64_t width() const { return sum_.size(0); }
  at::Tensor mean() const;  ///< DataError for no picture
  /// DataError for fewer than 2 pictures, of which there is no covariance.
  FeatureStatistics statistics() const;

 private:
  int64_t count_ = 0;
  at::Tensor sum_;       // (D)
  at::Tensor products_;  // (D, D)
};

/// |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)) (Heusel et al. 2017, arXiv 1706.08500).
///
/// The last trace is the sum of the singular values of C1^(1/2) C2^(1/2), the roots by symmetric eigendecomposition
/// with eigenvalues that are but rounding set to 0: there is no root of a matrix without symmetry, which fails for
/// covariances of few pictures, and a set compared with itself gives 0 within 1e-6 of its trace whatever its rank.
/// Never negative. DataError when the widths differ or numbers are not finite.
double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);

/// What is wrong with a distance of sets of this size, in a sentence; empty when nothing is. A covariance of D features
/// has full rank from D + 1 pictures on; below that, and for some way above it, the distance is much too large.
std::string small_set_warning(int64_t count, int64_t width);

/// Statistics with a name: "" for those of FID, which other programs read too, "fd_dinov2" for DINOv2's.
using NamedStatistics = std::vector<std::pair<std::string, FeatureStatistics>>;

/// Reads a .npz with `mu` (D) and `sigma` (D, D), float32 or float64: what pytorch-fid (compressed) and EDM, EDM2
/// (as they are) write. Ours may hold `count`, and further statistics as `NAME.mu` and so on. EDM2's .pkl files are
/// pickles, and are not read. DataError that names the file and what is wrong with it.
NamedStatistics read_statistics(const std::filesystem::path& file);
/// Writes such a file, not compressed.
void write_statistics(const std::filesystem::path& file, const NamedStatistics& statistics);

}  // namespace mdm
