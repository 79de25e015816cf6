// From a config to a network.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include "mdm/models/unet.h"

namespace mdm {
namespace {

// Gives uninitialised parameters their final dtype and layout, so that loading copies each tensor once.
void reallocate(UNet& model, const ModelOptions& options) {
  const c10::NoGradGuard no_grad;
  for (const auto& module : model.modules()) {
    const bool keeps_dtype = dynamic_cast<const GroupNorm*>(module.get()) != nullptr;
    for (at::Tensor& parameter : module->parameters(/*recurse=*/false)) {
      const auto format =
          options.channels_last && parameter.dim() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
      parameter.set_data(at::empty(parameter.sizes(), keeps_dtype ? at::kFloat : options.dtype, c10::nullopt,
                                   at::Device(at::kCPU), false, format));
    }
  }
}

}  // namespace

std::shared_ptr<UNet> make_model(const ModelConfig& config, int64_t text_dim, const ModelOptions& options) {
  constexpr int64_t kColours = 3;
  const std::vector<ResolvedUNetConfig> levels = resolve(config, text_dim);
  const std::vector<int64_t> scales = level_scales(config);
  std::shared_ptr<UNet> model;
  if (levels.size() > 1) {
    model = std::make_shared<NestedUNet>(levels, 0, scales, kColours, kColours);
  } else {
    model = std::make_shared<UNet>(levels, 0, scales, kColours, kColours);
  }
  if (options.dtype != at::kFloat || options.channels_last) reallocate(*model, options);
  return model;
}

at::Generator make_generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

}  // namespace mdm
