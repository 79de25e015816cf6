// Comparing, and small readers that the checks share.
#include <ATen/ATen.h>

#include <cmath>
#include <fstream>

#include "golden_runner/runner.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm::golden {
namespace {

std::string shape_text(const at::Tensor& t) { return concat(t.sizes()); }

}  // namespace

void Report::require(bool holds, const std::string& what, const std::string& detail) {
  ++comparisons_;
  if (!holds) failures_.push_back(detail.empty() ? what : what + ": " + detail);
}

void Report::skip(const std::string& why) { skip_ = why; }

void Report::compare(const std::string& what, const at::Tensor& actual, const at::Tensor& expected, double atol,
                     double rtol) {
  if (!actual.defined()) return require(false, what, "was not computed");
  if (actual.sizes() != expected.sizes()) {
    return require(false, what, "has shape " + shape_text(actual) + ", expected " + shape_text(expected));
  }
  ++comparisons_;
  if (expected.numel() == 0) return;
  const at::Tensor a = actual.detach().to(at::kCPU, at::kDouble);
  const at::Tensor e = expected.detach().to(at::kCPU, at::kDouble);
  if (!a.isfinite().equal(e.isfinite()) || !a.isnan().equal(e.isnan())) {
    return require(false, what, "is not finite in other places than expected");
  }
  const at::Tensor finite = e.isfinite();
  const at::Tensor difference = at::where(finite, (a - e).abs(), at::zeros_like(e));
  const at::Tensor share = difference / (atol + rtol * at::where(finite, e.abs(), at::zeros_like(e)));
  // 0/0 where no difference is allowed and there is none.
  const double worst = at::where(share.isnan(), at::zeros_like(share), share).max().item<double>();
  const double absolute = difference.max().item<double>();
  const double largest = at::where(finite, e.abs(), at::zeros_like(e)).max().item<double>();
  worst_absolute_ = std::max(worst_absolute_, absolute);
  // Gradients that are 0 in exact arithmetic hold rounding noise alone; they are compared with rtol 0.
  if (largest > 0 && rtol > 0) worst_relative_to_max_ = std::max(worst_relative_to_max_, absolute / largest);
  if (worst > worst_ || worst_what_.empty()) {
    worst_ = std::max(worst_, worst);
    worst_what_ = what;
  }
  if (!(worst <= 1)) {
    failures_.push_back(
        concat(what, ": off by ", absolute, ", ", worst, " times the tolerance (atol ", atol, ", rtol ", rtol, ")"));
  }
}

void Report::compare(const std::string& what, double actual, double expected, double atol, double rtol) {
  compare(what, at::tensor({actual}, at::kDouble), at::tensor({expected}, at::kDouble), atol, rtol);
}

void Report::exact(const std::string& what, const at::Tensor& actual, const at::Tensor& expected) {
  ++comparisons_;
  if (!actual.defined()) return require(false, what, "was not computed");
  if (actual.scalar_type() != expected.scalar_type() || actual.sizes() != expected.sizes()) {
    return require(false, what,
                   concat("is ", actual.scalar_type(), " ", actual.sizes(), ", expected ", expected.scalar_type(), " ",
                          expected.sizes()));
  }
  if (worst_what_.empty()) worst_what_ = what;
  const at::Tensor a = actual.detach().contiguous(), e = expected.detach().contiguous();
  const bool same = a.numel() == 0 || std::memcmp(a.data_ptr(), e.data_ptr(), a.nbytes()) == 0;
  if (!same) require(false, what, "differs in its bits");
}

nlohmann::json read_json(const std::filesystem::path& path) { return nlohmann::json::parse(read_text_file(path)); }

std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_text_file(path));
  for (std::string line; std::getline(text, line);) {
    if (!line.empty()) lines.push_back(nlohmann::json::parse(line));
  }
  return lines;
}

std::filesystem::path reference_file(const Context& context, const std::string& relative) {
  if (context.reference.empty()) return {};
  const auto path = context.reference / relative;
  return std::filesystem::is_regular_file(path) ? path : std::filesystem::path();
}

}  // namespace mdm::golden
