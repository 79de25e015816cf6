// Comparing the checksums of a file of tensors.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mdm::checkpoint {

struct RecordChecks {
  size_t compared = 0, without_checksum = 0;
  std::vector<std::string> damaged;  // names of entries
};

// Of a PyTorch zip archive; nothing is compared for other formats, which have no checksums.
RecordChecks check_records(const std::filesystem::path& path, bool map);

// The files that `path` (a file, index or folder) stands for.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& path, bool map);

}  // namespace mdm::checkpoint
