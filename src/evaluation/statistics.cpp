#include "mdm/evaluation/statistics.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <limits>

#include "mdm/core/error.h"
#include "mdm/distributed/process_group.h"

namespace mdm {
namespace {

at::TensorOptions doubles() { return at::TensorOptions().dtype(at::kDouble); }

bool all_finite(const at::Tensor& x) { return at::isfinite(x).all().item<bool>(); }

// A root R of a covariance, C = R R^T: (D, rank), from the eigenvectors. What rounding has left of eigenvalues that are
// 0 would count with its square root, which is 1e8 times as much: it goes.
at::Tensor root_of(const at::Tensor& covariance) {
  const auto [values, vectors] = at::linalg_eigh((covariance + covariance.t()) * 0.5);
  const int64_t width = values.size(0);
  const double least =
      values.max().item<double>() * static_cast<double>(width) * std::numeric_limits<double>::epsilon();
  const int64_t zeros = (values <= std::max(0.0, least)).sum().item<int64_t>();  // they come in ascending order
  return vectors.narrow(1, zeros, width - zeros) * values.narrow(0, zeros, width - zeros).sqrt().unsqueeze(0);
}

}  // namespace

MomentSum::MomentSum(int64_t width)
    : sum_(at::zeros({width}, doubles())), products_(at::zeros({width, width}, doubles())) {}

void MomentSum::add(const at::Tensor& rows) {
  if (rows.dim() != 2 || rows.size(1) != width()) fail<Error>("features are not ", width(), " wide");
  const at::Tensor values = rows.to(at::kCPU, at::kDouble);
  if (!all_finite(values)) fail<DataError>("a picture's features are not finite: the network's weights are broken");
  sum_ += values.sum(0);
  products_.addmm_(values.t(), values);
  count_ += rows.size(0);
}

void MomentSum::sum_over(ProcessGroup& group, const std::string& what) {
  at::Tensor count = at::full({1}, static_cast<double>(count_), doubles());
  group.sum(count, what + ": count");
  group.sum(sum_, what + ": mean");
  group.sum(products_, what + ": covariance");
  count_ = static_cast<int64_t>(count.item<double>());
}

at::Tensor MomentSum::mean() const {
  if (count_ < 1) fail<DataError>("there is no mean of no picture");
  return sum_ / static_cast<double>(count_);
}

FeatureStatistics MomentSum::statistics() const {
  if (count_ < 2) {
    fail<DataError>("the covariance of features needs at least 2 pictures; there ", count_ == 1 ? "is " : "are ",
                    count_);
  }
  const auto n = static_cast<double>(count_);
  FeatureStatistics statistics;
  statistics.count = count_;
  statistics.mean = mean();
  statistics.covariance = (products_ - at::outer(statistics.mean, statistics.mean) * n) / (n - 1);
  return statistics;
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  if (a.width() != b.width()) {
    fail<DataError>("features of ", a.width(), " numbers can't be compared with features of ", b.width(),
                    ": the statistics are of another network or layer");
  }
  for (const FeatureStatistics* one : {&a, &b}) {
    if (!all_finite(one->mean) || !all_finite(one->covariance))
      fail<DataError>("statistics hold numbers that are not finite");
  }
  const double means = (a.mean - b.mean).square().sum().item<double>();
  const double traces = (a.covariance.trace() + b.covariance.trace()).item<double>();
  const at::Tensor mixed = at::matmul(root_of(a.covariance).t(), root_of(b.covariance));
  const double common = mixed.numel() == 0 ? 0 : at::linalg_svdvals(mixed).sum().item<double>();
  return std::max(0.0, means + traces - 2 * common);
}

std::string small_set_warning(int64_t count, int64_t width) {
  if (count <= 0 || count > 2 * width) return {};
  if (count <= width) {
    return concat(count, " pictures give a covariance of ", width, " features without full rank (it takes ", width + 1,
                  "): the distance says little, and is no number to compare with others'");
  }
  return concat(count, " pictures are few for ", width,
                " features: the distance is too large by an amount that falls with their number");
}

}  // namespace mdm
