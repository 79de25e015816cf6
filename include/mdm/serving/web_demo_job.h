// What the program `web_demo` does: models in a browser, and for other programs over HTTP.
#pragma once

#include <atomic>

#include "mdm/config/command_line.h"

namespace mdm {

/// The command line of `web_demo`.
AppInfo web_demo_app_info();

/// Serves until `stop`: then it takes no more jobs, ends the step that is being made, tells all who wait, and frees the
/// port. The address goes to stdout as soon as requests are answered. Returns 0. Throws ConfigError (settings, no
/// model, no key for an address that others reach), CheckpointError, Error (port in use).
int run_web_demo(const ParsedCommandLine& command_line, const std::atomic<bool>& stop);

}  // namespace mdm
