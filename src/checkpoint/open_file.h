// Opens a file or folder of tensors in any of the supported formats. Free of LibTorch.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/loaded_file.h"

namespace mdm::checkpoint {

struct OpenOptions {
  bool map = true;
  std::optional<std::string> state_dict_path;
};

enum class FileFormat { kSafetensors, kTorchZip, kTorchLegacy };

// The path as it stands in error texts.
std::string place_of(const std::filesystem::path& path);

// The bytes of a regular file; CheckpointError when that is impossible.
std::shared_ptr<const FileBytes> open_bytes(const std::filesystem::path& path, bool map);

// What the bytes are, by their content. CheckpointError that says what the file is instead, if none.
FileFormat recognize_format(std::string_view bytes, const std::string& place);

// One file. CheckpointError beginning with the path when it can't be used.
LoadedFile open_single_file(const std::filesystem::path& path, const OpenOptions& options);

// A file, an index of shards (*.index.json) or a folder that holds either.
LoadedFile open_file(const std::filesystem::path& path, const OpenOptions& options);

}  // namespace mdm::checkpoint
