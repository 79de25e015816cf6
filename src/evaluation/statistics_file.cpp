// Statistics in .npz files.
#include <ATen/ops/full.h>

#include <map>

#include "evaluation/npz.h"
#include "mdm/core/error.h"
#include "mdm/evaluation/statistics.h"

namespace mdm {
namespace {

constexpr const char* kMean = "mu";
constexpr const char* kCovariance = "sigma";
constexpr const char* kCount = "count";

std::string key_of(const std::string& name, const char* part) { return name.empty() ? part : name + "." + part; }

}  // namespace

NamedStatistics read_statistics(const std::filesystem::path& file) {
  const std::string where = printable(file.string(), 1000);
  std::map<std::string, at::Tensor> arrays;
  for (auto& [name, array] : evaluation::read_npz(file)) arrays[name] = array;
  NamedStatistics all;
  for (const auto& [key, mean] : arrays) {
    const size_t dot = key.rfind('.');
    const std::string name = dot == std::string::npos ? "" : key.substr(0, dot);
    if (key != key_of(name, kMean)) continue;
    const auto covariance = arrays.find(key_of(name, kCovariance)), count = arrays.find(key_of(name, kCount));
    if (covariance == arrays.end())
      fail<DataError>(where, ": has ", printable(key), ", but no ", key_of(name, kCovariance));
    if (mean.dim() != 1 || mean.size(0) < 1 || covariance->second.dim() != 2 ||
        covariance->second.size(0) != mean.size(0) || covariance->second.size(1) != mean.size(0)) {
      fail<DataError>(where, ": ", printable(key), " is no row of D numbers, or its sigma not D rows of these");
    }
    FeatureStatistics statistics;
    statistics.mean = mean;
    statistics.covariance = covariance->second;
    if (count != arrays.end() && count->second.numel() == 1)
      statistics.count = static_cast<int64_t>(count->second.item<double>());
    all.emplace_back(name, std::move(statistics));
  }
  if (all.empty()) fail<DataError>(where, ": holds no statistics, which are the arrays mu and sigma");
  return all;
}

void write_statistics(const std::filesystem::path& file, const NamedStatistics& statistics) {
  evaluation::NamedArrays arrays;
  for (const auto& [name, one] : statistics) {
    arrays.emplace_back(key_of(name, kMean), one.mean);
    arrays.emplace_back(key_of(name, kCovariance), one.covariance);
    arrays.emplace_back(key_of(name, kCount), at::full({1}, static_cast<double>(one.count), at::kDouble));
  }
  evaluation::write_npz(file, arrays);
}

}  // namespace mdm
