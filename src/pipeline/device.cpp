#include "pipeline/device.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/ops/memory.h"

namespace mdm {
namespace {

int cuda_devices() { return at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0; }

}  // namespace

at::Device resolve_device(const std::string& name, int64_t local_rank) {
  if (name == "cpu") return at::Device(at::kCPU);
  const int devices = cuda_devices();
  if (name == "auto" && devices == 0) return at::Device(at::kCPU);
  auto index = static_cast<int>(local_rank);
  if (name.rfind("cuda:", 0) == 0) {
    const std::string number = name.substr(5);
    if (number.empty() || number.size() > 4 || number.find_first_not_of("0123456789") != std::string::npos) {
      fail<ConfigError>("device: '", printable(name), "' is not one of auto, cpu, cuda, cuda:N");
    }
    index = std::stoi(number);
  } else if (name != "cuda" && name != "auto") {
    fail<ConfigError>("device: '", printable(name), "' is not one of auto, cpu, cuda, cuda:N");
  }
  if (devices == 0) {
    fail<ConfigError>("device: ", name, " was asked for, but ",
                      at::globalContext().hasCUDA() ? "there is no CUDA device" : "this build or machine has no CUDA",
                      "; use --device cpu");
  }
  if (index >= devices) {
    fail<ConfigError>("device: ", name, " was asked for",
                      local_rank > 0 ? concat(" by process ", local_rank, " here") : "", ", but there are only ",
                      devices, " devices");
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

std::vector<at::Device> all_devices(const std::string& name) {
  const at::Device first = resolve_device(name);
  std::vector<at::Device> devices = {first};
  if (first.is_cuda() && (name == "auto" || name == "cuda")) {
    for (int i = 1; i < cuda_devices(); ++i) devices.emplace_back(at::kCUDA, static_cast<c10::DeviceIndex>(i));
  }
  return devices;
}

namespace {

// The number behind `key` in a file of the kernel, in bytes; -1 when there is none (as "max").
int64_t number_of_kernel(const char* file, const std::string& key, int64_t unit) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    std::istringstream text(line.substr(key.size()));
    int64_t number = -1;
    return text >> number ? number * unit : -1;
  }
  return -1;
}

}  // namespace

int64_t available_memory(at::Device device) {
  if (!device.is_cpu()) return static_cast<int64_t>(at::accelerator::getMemoryInfo(device.index()).first);
  int64_t bytes = number_of_kernel("/proc/meminfo", "MemAvailable:", 1024);
  const int64_t limit = number_of_kernel("/sys/fs/cgroup/memory.max", "", 1);
  const int64_t used = number_of_kernel("/sys/fs/cgroup/memory.current", "", 1);
  if (limit >= 0 && used >= 0) bytes = bytes < 0 ? limit - used : std::min(bytes, limit - used);
  return std::max<int64_t>(bytes, 0);
}

void apply_runtime(const RuntimeConfig& runtime, const Launch& launch) {
  if (launch.rank > 0) set_log_level(LogLevel::kWarning);
  if (!runtime.loglevel.empty()) set_log_level(parse_log_level(runtime.loglevel));
  if (launch.world_size > 1) set_log_prefix(concat("rank ", launch.rank, ": "));
  ops::keep_freed_memory();
  const int64_t sharing = launch.local_world_size.value_or(launch.world_size);
  if (runtime.threads > 0) {
    at::set_num_threads(static_cast<int>(runtime.threads));
  } else if (sharing > 1 && std::getenv("OMP_NUM_THREADS") == nullptr) {
    // A launcher may have bound the process to some of the cores already.
    const int64_t share = ::sysconf(_SC_NPROCESSORS_ONLN) / sharing;
    at::set_num_threads(static_cast<int>(std::clamp<int64_t>(share, 1, at::get_num_threads())));
  }
}

}  // namespace mdm
