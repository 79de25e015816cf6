// What the names in a pickle are good for. Free of LibTorch.
#pragma once

#include <vector>

#include "checkpoint/pickle.h"
#include "mdm/checkpoint/inspect.h"

namespace mdm::checkpoint {

// All names that the pickle wanted imported, suspicious ones first, then unknown ones, each by name.
std::vector<PickledName> pickled_names(const ValueArena& arena);

}  // namespace mdm::checkpoint
