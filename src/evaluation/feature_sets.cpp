#include "mdm/evaluation/feature_sets.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/core/random.h"

namespace mdm {
namespace {

void check_widths(const at::Tensor& a, const at::Tensor& b) {
  if (a.dim() != 2 || b.dim() != 2 || a.size(1) != b.size(1))
    fail<DataError>("the two sets' features are not of one width");
}

at::Tensor kernel(const at::Tensor& a, const at::Tensor& b) {
  const double scale = 1.0 / static_cast<double>(a.size(1));
  return at::matmul(a, b.t()).mul_(scale).add_(1).pow_(3);
}

double discrepancy(const at::Tensor& x, const at::Tensor& y) {
  const auto n = static_cast<double>(x.size(0));
  const at::Tensor xx = kernel(x, x), yy = kernel(y, y), xy = kernel(x, y);
  const double same = (xx.sum() - xx.trace() + yy.sum() - yy.trace()).item<double>();
  return same / (n * (n - 1)) - 2 * xy.sum().item<double>() / (n * n);
}

// `count` of the rows, drawn without repetition.
at::Tensor drawn_rows(const at::Tensor& rows, int64_t count, uint64_t seed, uint64_t subset, uint32_t set) {
  if (count == rows.size(0)) return rows;
  RandomAddress address;
  address.seed = seed;
  address.sample = subset;
  address.layer = set;
  address.stream = RandomStream::kShuffle;
  std::vector<int64_t> order(static_cast<size_t>(rows.size(0)));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    std::swap(order[i], order[i + random_below(address, i, order.size() - i)]);
  }
  order.resize(static_cast<size_t>(count));
  return rows.index_select(0, at::tensor(order));
}

constexpr int64_t kRowsAtATime = 1024;  // of a matrix of distances

// Of each row the distance to the `neighbours`-th nearest other one.
at::Tensor radii(const at::Tensor& rows, int64_t neighbours) {
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < rows.size(0); first += kRowsAtATime) {
    const int64_t count = std::min(kRowsAtATime, rows.size(0) - first);
    const at::Tensor distances = at::cdist(rows.narrow(0, first, count), rows);
    parts.push_back(std::get<0>(distances.kthvalue(neighbours + 1, 1)));  // the nearest is the row itself
  }
  return at::cat(parts);
}

// Share of `rows` that lie in a ball of `centres`.
double share_inside(const at::Tensor& rows, const at::Tensor& centres, const at::Tensor& reach) {
  int64_t inside = 0;
  for (int64_t first = 0; first < rows.size(0); first += kRowsAtATime) {
    const int64_t count = std::min(kRowsAtATime, rows.size(0) - first);
    const at::Tensor distances = at::cdist(rows.narrow(0, first, count), centres);
    inside += (distances <= reach.unsqueeze(0)).any(1).sum().item<int64_t>();
  }
  return static_cast<double>(inside) / static_cast<double>(rows.size(0));
}

}  // namespace

KernelDistance kernel_distance(const at::Tensor& generated, const at::Tensor& reference, int64_t subsets,
                               int64_t subset_size, uint64_t seed) {
  check_widths(generated, reference);
  KernelDistance result;
  result.subset_size = std::min({subset_size, generated.size(0), reference.size(0)});
  if (result.subset_size < 2) fail<DataError>("KID needs at least 2 pictures of each set");
  const bool whole = result.subset_size == generated.size(0) && result.subset_size == reference.size(0);
  result.subsets = whole ? 1 : std::max<int64_t>(1, subsets);
  const at::Tensor x = generated.to(at::kDouble), y = reference.to(at::kDouble);
  std::vector<double> values;
  for (int64_t i = 0; i < result.subsets; ++i) {
    const auto subset = static_cast<uint64_t>(i);
    values.push_back(discrepancy(drawn_rows(x, result.subset_size, seed, subset, 0),
                                 drawn_rows(y, result.subset_size, seed, subset, 1)));
  }
  const auto n = static_cast<double>(values.size());
  for (const double value : values) result.mean += value / n;
  for (const double value : values) result.deviation += (value - result.mean) * (value - result.mean) / n;
  result.deviation = std::sqrt(result.deviation);
  return result;
}

PrecisionRecall precision_recall(const at::Tensor& generated, const at::Tensor& reference, int64_t neighbours) {
  check_widths(generated, reference);
  if (std::min(generated.size(0), reference.size(0)) <= neighbours) {
    fail<DataError>("precision and recall with ", neighbours, " neighbours need at least ", neighbours + 1,
                    " pictures of each set; there are ", generated.size(0), " and ", reference.size(0));
  }
  const at::Tensor x = generated.to(at::kDouble), y = reference.to(at::kDouble);
  return {share_inside(x, y, radii(y, neighbours)), share_inside(y, x, radii(x, neighbours))};
}

}  // namespace mdm
