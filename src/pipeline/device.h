// Where a run computes.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "mdm/config/runtime_config.h"
#include "mdm/distributed/launch.h"

namespace mdm {

// The device that "auto", "cpu", "cuda" or "cuda:N" names; of several GPUs "auto" and "cuda" mean the one with the
// number of the process on its machine. ConfigError when it is not there.
at::Device resolve_device(const std::string& name, int64_t local_rank = 0);

// The same, but all GPUs where resolve_device would choose one of several.
std::vector<at::Device> all_devices(const std::string& name);

// Bytes of memory that a device has to give now; of the CPU within the limits of a container.
int64_t available_memory(at::Device device);

// Threads, log level and log prefix of the process; called by programs, never by the library itself. Processes on one
// machine share its cores, unless told otherwise; only rank 0 logs more than warnings, unless told otherwise.
void apply_runtime(const RuntimeConfig& runtime, const Launch& launch = {});

}  // namespace mdm
