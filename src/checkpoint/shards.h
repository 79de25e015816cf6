// Models in several files: an index that names the shard of each tensor, and folders as Hugging Face lays
// them out. Free of LibTorch.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/open_file.h"

namespace mdm::checkpoint {

struct ShardIndex {
  std::vector<std::pair<std::string, uint32_t>> keys;  // tensor -> files[...], in the order of the index
  std::vector<std::string> files;                      // bare names
};

// Reads {"metadata": ..., "weight_map": {tensor: file}}. File names with a slash, backslash, "..", or of
// hidden files are refused. CheckpointError beginning with `place`.
ShardIndex parse_shard_index(std::string_view json, const std::string& place);

// Opens all shards of an index file. Each tensor must be in the shard that the index names and in no other.
LoadedFile open_shards(const std::filesystem::path& index, const OpenOptions& options);

// The file in a folder that holds the weights: model.safetensors, model.safetensors.index.json,
// pytorch_model.bin or pytorch_model.bin.index.json, in this order. CheckpointError when there is none.
std::filesystem::path find_weights(const std::filesystem::path& folder);

bool is_index_name(const std::filesystem::path& path);

}  // namespace mdm::checkpoint
