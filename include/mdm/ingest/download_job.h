// What the program `download_dataset` does: from lists of URLs, or shards on servers, to data sets that train.
#pragma once

#include <atomic>

#include "mdm/config/command_line.h"

namespace mdm {

AppInfo download_dataset_app_info();

/// The verbs scrape, fetch, verify, stats and pretrained. `stop` ends the work soon, in a state that a later call goes
/// on from. Exit code: 0; 4 when something was left out or is wrong; 75 when stopped. Throws ConfigError, DataError,
/// Error.
int run_download_dataset(const ParsedCommandLine& command_line, const std::atomic<bool>& stop);

}  // namespace mdm
