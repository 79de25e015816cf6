// What the program `checkpoint` does: look into files of weights, check them, convert them, make fresh ones.
#pragma once

#include "mdm/config/command_line.h"

namespace mdm {

/// The command line of `checkpoint`.
AppInfo checkpoint_app_info();

/// inspect FILE (exit code 3 when no tensors can be read from it); verify FILE (3 when it is damaged);
/// convert FROM TO; init FILE.
/// Results go to stdout. Throws ConfigError, CheckpointError, Error.
int run_checkpoint(const ParsedCommandLine& command_line);

}  // namespace mdm
