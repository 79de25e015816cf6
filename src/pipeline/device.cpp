#include "pipeline/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

int cuda_devices() { return at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0; }

}  // namespace

at::Device resolve_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  const int devices = cuda_devices();
  if (name == "auto") return devices > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  int index = 0;
  if (name.rfind("cuda:", 0) == 0) {
    const std::string number = name.substr(5);
    if (number.empty() || number.size() > 4 || number.find_first_not_of("0123456789") != std::string::npos) {
      fail<ConfigError>("device: '", printable(name), "' is not one of auto, cpu, cuda, cuda:N");
    }
    index = std::stoi(number);
  } else if (name != "cuda") {
    fail<ConfigError>("device: '", printable(name), "' is not one of auto, cpu, cuda, cuda:N");
  }
  if (devices == 0) {
    fail<ConfigError>("device: ", name, " was asked for, but ",
                      at::globalContext().hasCUDA() ? "there is no CUDA device" : "this build or machine has no CUDA",
                      "; use --device cpu");
  }
  if (index >= devices) fail<ConfigError>("device: ", name, " was asked for, but there are only ", devices, " devices");
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

void apply_runtime(const RuntimeConfig& runtime) {
  if (!runtime.loglevel.empty()) set_log_level(parse_log_level(runtime.loglevel));
  if (runtime.threads > 0) at::set_num_threads(static_cast<int>(runtime.threads));
}

}  // namespace mdm
