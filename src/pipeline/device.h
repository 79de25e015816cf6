// Where a run computes.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "mdm/config/runtime_config.h"
#include "mdm/distributed/launch.h"

namespace mdm {

// The device that "auto", "cpu", "cuda" or "cuda:N" names; of several GPUs "auto" and "cuda" mean the one with the
// number of the process on its machine. ConfigError when it is not there.
at::Device resolve_device(const std::string& name, int64_t local_rank = 0);

// Threads, log level and log prefix of the process; called by programs, never by the library itself. Processes on one
// machine share its cores, unless told otherwise; only rank 0 logs more than warnings, unless told otherwise.
void apply_runtime(const RuntimeConfig& runtime, const Launch& launch = {});

}  // namespace mdm
