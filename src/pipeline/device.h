// Where a run computes.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "mdm/config/runtime_config.h"

namespace mdm {

// The device that "auto", "cpu", "cuda" or "cuda:N" names. ConfigError when it is not there.
at::Device resolve_device(const std::string& name);

// Threads and log level of the process; called by programs, never by the library itself.
void apply_runtime(const RuntimeConfig& runtime);

}  // namespace mdm
