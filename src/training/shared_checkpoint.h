// The checkpoint that all processes go on from: rank 0 looks for it, the others read the same folder.
#pragma once

#include <optional>

#include "mdm/distributed/process_group.h"
#include "mdm/training/run_directory.h"

namespace mdm {

// RunDirectory::latest() of rank 0, which alone has a run directory; null there: nothing. Throws what latest() throws
// on rank 0, on the others DistributedError, there also when the folder isn't to be seen.
std::optional<SavedCheckpoint> shared_latest(RunDirectory* run, ProcessGroup& group);

}  // namespace mdm
