// What the program `sample` does: settings in, a folder of pictures out.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "mdm/config/command_line.h"

namespace mdm {

/// The command line of `sample`.
AppInfo sample_app_info();

/// Makes all pictures that the command line asks for and writes them into the output folder: one PNG a
/// picture with its settings inside (sample_000000.png, ...), a grid, lst.json, index.html, and on demand
/// all levels side by side and the denoising path as an animation. Progress goes to stderr, the folder's
/// name to stdout. `cancel` stops before the next step; finished pictures are kept and listed.
/// Of several processes (distributed/launch.h) each makes batches in turn, and rank 0 lists the pictures of all: they
/// are those of one process. `on_stuck`: ProcessGroup::Options::on_stuck.
/// Returns 0, or 130 when cancelled. Throws ConfigError, CheckpointError, DataError, DistributedError, Error.
int run_sample(const ParsedCommandLine& command_line, const std::atomic<bool>& cancel,
               const std::function<void(const std::string&)>& on_stuck = {});

}  // namespace mdm
