// What every program's main() calls: command line in, exit code out.
#pragma once

#include <functional>
#include <string>

#include "mdm/config/command_line.h"

namespace mdm {

/// Reads the command line, answers --help, --version and --print-config, calls `run`, and turns errors
/// into a line on stderr and an exit code (see run_app).
int app_main(int argc, char** argv, const AppInfo& info, const std::function<int(const ParsedCommandLine&)>& run);

/// Ends the process: one of several that waits for others which are gone, and that nothing else would end
/// (ProcessGroup::Options::on_stuck).
[[noreturn]] void end_stuck_process(const std::string& why);

/// What c10d warns of, with stack traces, is in our errors: unless the user wants it, it is not printed.
void quiet_c10d();

}  // namespace mdm
