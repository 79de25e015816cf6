// What the program `demo_dataset` does: data sets to train small models on, prompts for them, and a judge of what the
// models draw.
#pragma once

#include "mdm/config/command_line.h"

namespace mdm {

AppInfo demo_dataset_app_info();

/// shapes, emoji: write a data set; prompts: captions of a split; judge: rates of pictures that `sample` made, as JSON
/// on stdout. Returns 0. Throws ConfigError, DataError, Error.
int run_demo_dataset(const ParsedCommandLine& command_line);

}  // namespace mdm
