// What both writers do to tensors and names before they write.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/element_type.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/files.h"

namespace mdm::checkpoint {

// A tensor to be written, whose values are fetched when it is its turn and dropped after it.
struct WriteItem {
  std::string name;
  ElementType type;  // as written
  std::vector<int64_t> shape;
  std::function<at::Tensor()> values;

  uint64_t bytes() const;
};
using WriteItems = std::vector<WriteItem>;

// A dictionary of tensors in a .pth.
struct WriteSection {
  std::string name;
  WriteItems items;
};

// CheckpointError when a name is empty, too long, not UTF-8, holds a NUL or is given twice, when a tensor
// is undefined, or when files can't hold its dtype.
WriteItems write_items(const std::vector<NamedTensor>& tensors, const WriteOptions& options);
WriteItems write_items(const TensorFile& file, const WriteOptions& options);

// A tensor of a file, to be made contiguous. CheckpointError when a few values in the file would grow out
// of proportion (strides of zero cost a hostile file nothing).
at::Tensor tensor_to_copy(const TensorFile& file, const std::string& name);

// The values in host memory, contiguous and of the type to write; a copy only where that is needed.
at::Tensor written_values(const WriteItem& item);

using TextMap = std::map<std::string, std::string>;
void save_safetensors(const std::filesystem::path& path, const WriteItems& items, const TextMap& metadata);
std::filesystem::path save_shards(const std::filesystem::path& folder, const WriteItems& items,
                                  uint64_t max_shard_bytes, const TextMap& metadata);
void save_pth(const std::filesystem::path& path, const std::vector<WriteSection>& sections,
              const std::string& items_json);

// Continues a CRC-32 that began with 0.
uint32_t add_crc(uint32_t crc, const void* bytes, size_t count);

}  // namespace mdm::checkpoint
