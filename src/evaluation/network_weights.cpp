#include "evaluation/network_weights.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace mdm::evaluation {

bool ends_with(const std::string& text, const std::string& ending) {
  return text.size() >= ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

at::Tensor NetworkWeights::add(const std::string& name, std::vector<int64_t> shape) {
  tensors_.push_back({name, at::empty(shape, at::TensorOptions().dtype(at::kFloat))});
  return tensors_.back().tensor;
}

void NetworkWeights::load(const TensorFile& file, const std::string& prefix) {
  std::vector<NamedTensor> all = tensors_;
  for (const TensorEntry& entry : file.entries()) {
    const bool idle = std::any_of(ignored_.begin(), ignored_.end(),
                                  [&](const std::string& ending) { return ends_with(entry.name, ending); });
    if (!idle || entry.name.compare(0, prefix.size(), prefix) != 0) continue;
    all.push_back({entry.name.substr(prefix.size()), at::empty(entry.shape, at::TensorOptions().dtype(entry.dtype))});
  }
  LoadOptions options;
  options.prefix = prefix;
  load_state_dict(file, all, options);
}

}  // namespace mdm::evaluation
