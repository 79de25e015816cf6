// Numbers on their way from a device to the host: what is queued after them runs on while somebody waits for them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>
#include <vector>

namespace mdm {

class LateNumbers {
 public:
  /// (N) float64, as they are once all work queued so far is done.
  explicit LateNumbers(const at::Tensor& values);
  /// Waits for them.
  std::vector<double> get() const;

 private:
  at::Tensor host_;
  std::optional<c10::Event> copied_;  // none on the CPU
};

}  // namespace mdm
