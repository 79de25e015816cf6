// What the program `evaluate` does: pictures, or a checkpoint that makes them, in; numbers out.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "mdm/config/command_line.h"

namespace mdm {

/// The command line of `evaluate`.
AppInfo evaluate_app_info();

/// Scores the pictures that --generated names, or those that --checkpoint draws for --prompts, against --reference and
/// their captions. A table goes to stdout, and with --output FILE everything that moved a number as JSON. Of several
/// processes (distributed/launch.h) each takes a share of the pictures, and rank 0 reports: the numbers are those of
/// one process (1e-9 relative with the same number of threads each). `cancel` ends it without a result. `on_stuck`:
/// ProcessGroup::Options::on_stuck.
/// Returns 0; 4 when some pictures could not be read (the numbers are of the others); 130 when cancelled. Throws
/// ConfigError, CheckpointError, DataError (no picture could be read, sets too small), DistributedError, Error.
int run_evaluate(const ParsedCommandLine& command_line, const std::atomic<bool>& cancel,
                 const std::function<void(const std::string&)>& on_stuck = {});

}  // namespace mdm
