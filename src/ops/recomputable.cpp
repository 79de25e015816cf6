#include "mdm/ops/recomputable.h"

#include <c10/core/GradMode.h>

#include <utility>

namespace mdm::ops {

Recomputable::Recomputable(const at::Tensor& value) : make_([](at::TensorList t) { return t[0]; }), from_{value} {}

Recomputable::Recomputable(Maker make, std::vector<at::Tensor> from) : make_(std::move(make)), from_(std::move(from)) {
  if (!c10::GradMode::is_enabled()) *this = Recomputable(value());
}

}  // namespace mdm::ops
