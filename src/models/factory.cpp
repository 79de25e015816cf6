// From a config to a network.
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include "mdm/models/unet.h"

namespace mdm {

std::shared_ptr<UNet> make_model(const ModelConfig& config, int64_t text_dim) {
  constexpr int64_t kColours = 3;
  const std::vector<ResolvedUNetConfig> levels = resolve(config, text_dim);
  const std::vector<int64_t> scales = level_scales(config);
  if (levels.size() > 1) return std::make_shared<NestedUNet>(levels, 0, scales, kColours, kColours);
  return std::make_shared<UNet>(levels, 0, scales, kColours, kColours);
}

at::Generator make_generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

void set_compute_dtype(UNet& model, at::ScalarType dtype) {
  const c10::NoGradGuard no_grad;
  for (const auto& module : model.modules()) {
    if (dynamic_cast<GroupNorm*>(module.get()) != nullptr) continue;
    for (at::Tensor& parameter : module->parameters(/*recurse=*/false)) parameter.set_data(parameter.to(dtype));
  }
}

}  // namespace mdm
