#include "training/late_numbers.h"

#include <ATen/ops/empty_like.h>

namespace mdm {

LateNumbers::LateNumbers(const at::Tensor& values) {
  if (values.is_cpu()) {
    host_ = values.clone();
    return;
  }
  // Only a copy to pinned memory lets the host go on.
  host_ = at::empty_like(values, at::TensorOptions().device(at::kCPU).pinned_memory(true));
  host_.copy_(values, /*non_blocking=*/true);
  copied_.emplace(values.device().type());
  copied_->record(c10::impl::VirtualGuardImpl(values.device().type()).getStream(values.device()));
}

std::vector<double> LateNumbers::get() const {
  if (copied_) copied_->synchronize();
  const auto* first = host_.const_data_ptr<double>();
  return {first, first + host_.numel()};
}

}  // namespace mdm
