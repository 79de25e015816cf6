// The parameters of a network that only computes: named one by one, then filled from its file, all or none.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/tensor_file.h"

namespace mdm::evaluation {

class NetworkWeights {
 public:
  // A float32 parameter on the CPU, uninitialised until load(). Sharing its memory with what load() fills.
  at::Tensor add(const std::string& name, std::vector<int64_t> shape);
  // Tensors of the file that the network has no use for, by the end of their names.
  void ignore(const std::string& ending) { ignored_.push_back(ending); }
  // CheckpointError that lists everything missing, unexpected or of another shape. `prefix`: LoadOptions::prefix.
  void load(const TensorFile& file, const std::string& prefix = "");

 private:
  std::vector<NamedTensor> tensors_;
  std::vector<std::string> ignored_;
};

// Whether a name ends so.
bool ends_with(const std::string& text, const std::string& ending);

}  // namespace mdm::evaluation
