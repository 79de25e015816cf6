// From a PyTorch file to named tensors: which dictionary of it is the state dict. Free of LibTorch.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/loaded_file.h"
#include "checkpoint/torch_archive.h"

namespace mdm::checkpoint {

struct StateDictChoice {
  const Value* dictionary = nullptr;
  std::string path;    // dotted; empty: the top level
  bool named = false;  // asked for, or found under one of the usual names
};

// Follows `path`, or without one the usual names (state_dict, model_state_dict, model). CheckpointError
// when the path leads nowhere or the file holds no dictionary at its top.
StateDictChoice choose_state_dict(const TorchArchive& archive, const std::optional<std::string>& path);

// The dotted paths of all dictionaries that hold tensors (of a bounded depth and number).
std::vector<std::string> paths_with_tensors(const Value& root);

// The tensors of the chosen dictionary, and the other items as JSON. The file's bytes stay the caller's.
LoadedFile read_torch_file(const std::shared_ptr<const FileBytes>& file, FileFormat format,
                           const std::optional<std::string>& state_dict_path);

}  // namespace mdm::checkpoint
