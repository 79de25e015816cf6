// What has changed between the config of a checkpoint and the one that a run shall go on with.
#pragma once

#include <string>
#include <vector>

#include "mdm/config/config.h"

namespace mdm {

// A line for each setting that differs and that resuming doesn't leave free ("trainer.lr: was 0.1, is 0.2").
// Free are those about how often something is logged, saved or shown, where files go, how many threads work and
// when training ends; num_training_steps not where the learning rate falls towards it.
std::vector<std::string> config_changes(const std::string& saved_json, const Config& config);

// What two processes that train together must have alike and don't: a line each, `first` being rank 0's config as JSON.
std::vector<std::string> process_differences(const std::string& first_json, const Config& own);

}  // namespace mdm
