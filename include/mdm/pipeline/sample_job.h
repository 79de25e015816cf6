// What the program `sample` does: settings in, a folder of pictures out.
#pragma once

#include <atomic>

#include "mdm/config/command_line.h"

namespace mdm {

/// The command line of `sample`.
AppInfo sample_app_info();

/// Makes all pictures that the command line asks for and writes them into the output folder: one PNG a
/// picture with its settings inside (sample_000000.png, ...), a grid, lst.json, index.html, and on demand
/// all levels side by side and the denoising path as an animation. Progress goes to stderr, the folder's
/// name to stdout. `cancel` stops before the next step; finished pictures are kept and listed.
/// Returns 0, or 130 when cancelled. Throws ConfigError, CheckpointError, DataError, Error.
int run_sample(const ParsedCommandLine& command_line, const std::atomic<bool>& cancel);

}  // namespace mdm
