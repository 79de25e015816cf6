// A file of tensors after parsing, whatever its format: records into bytes that it keeps alive, and the
// other items as JSON text. TensorFile wraps it. Free of LibTorch.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/tensor_record.h"
#include "mdm/core/files.h"

namespace mdm::checkpoint {

struct LoadedFile {
  std::vector<TensorRecord> tensors;
  // The file that tensor i lies in is files[file_of[i]]; an empty file_of means files[0] for all.
  std::vector<uint32_t> file_of;
  std::vector<std::shared_ptr<const FileBytes>> files;
  std::string metadata_json = "{}";
};

}  // namespace mdm::checkpoint
