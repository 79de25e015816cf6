// What every program's main() calls: command line in, exit code out.
#pragma once

#include <functional>

#include "mdm/config/command_line.h"

namespace mdm {

/// Reads the command line, answers --help, --version and --print-config, calls `run`, and turns errors
/// into a line on stderr and an exit code (see run_app).
int app_main(int argc, char** argv, const AppInfo& info, const std::function<int(const ParsedCommandLine&)>& run);

}  // namespace mdm
