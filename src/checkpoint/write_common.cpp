// Preparing tensors for the writers, and the writers' public functions.
#include "checkpoint/write_common.h"

#include <c10/core/ScalarType.h>
#include <zlib.h>

#include <algorithm>

#include "checkpoint/json_text.h"
#include "checkpoint/open_file.h"
#include "checkpoint/scalar_type.h"
#include "checkpoint/tensor_record.h"
#include "mdm/core/error.h"

namespace mdm {
namespace checkpoint {
namespace {

ElementType written_type(const std::string& name, at::ScalarType own, const WriteOptions& options) {
  const at::ScalarType type = options.dtype && c10::isFloatingType(own) ? *options.dtype : own;
  const auto element = to_element_type(type);
  if (!element) {
    fail<CheckpointError>("tensor '", printable(name), "' can't be written: files can't hold ", c10::toString(type));
  }
  return *element;
}

void check_item(const WriteItem& item) {
  if (item.name.empty() || item.name.size() > kMaxNameBytes || item.name.find('\0') != std::string::npos ||
      !is_utf8(item.name)) {
    fail<CheckpointError>("'", printable(item.name), "' can't be the name of a tensor in a file");
  }
  if (item.shape.size() > kMaxDimensions) {
    fail<CheckpointError>("tensor '", printable(item.name), "' has ", item.shape.size(), " dimensions; at most ",
                          kMaxDimensions, " can be written");
  }
}

void check_all(const WriteItems& items) {
  if (items.size() > kMaxTensors) fail<CheckpointError>("at most ", kMaxTensors, " tensors can be written to a file");
  std::vector<std::string_view> names;
  for (const auto& item : items) {
    check_item(item);
    names.push_back(item.name);
  }
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) fail<CheckpointError>("tensor '", printable(*twin), "' is given twice");
}

}  // namespace

uint64_t WriteItem::bytes() const {
  uint64_t count = info(type).size;
  for (const int64_t size : shape) count *= static_cast<uint64_t>(size);
  return count;
}

WriteItems write_items(const std::vector<NamedTensor>& tensors, const WriteOptions& options) {
  WriteItems items;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined()) fail<CheckpointError>("tensor '", printable(name), "' is undefined");
    const ElementType type = written_type(name, tensor.scalar_type(), options);
    items.push_back({name, type, tensor.sizes().vec(), [tensor = tensor] { return tensor; }});
  }
  check_all(items);
  return items;
}

WriteItems write_items(const TensorFile& file, const WriteOptions& options) {
  WriteItems items;
  for (const auto& entry : file.entries()) {
    const ElementType type = written_type(entry.name, entry.dtype, options);
    items.push_back({entry.name, type, entry.shape, [&file, &entry] { return tensor_to_copy(file, entry.name); }});
  }
  check_all(items);
  return items;
}

at::Tensor tensor_to_copy(const TensorFile& file, const std::string& name) {
  const at::Tensor tensor = file.tensor(name);
  const size_t in_file = tensor.storage().nbytes();
  if (tensor.nbytes() > (size_t{64} << 20) + 4 * in_file) {
    fail<CheckpointError>(place_of(file.path()), ": tensor '", printable(name), "' expands ", in_file,
                          " bytes in the file to ", tensor.nbytes());
  }
  return tensor;
}

at::Tensor written_values(const WriteItem& item) {
  const auto options = at::TensorOptions().device(at::kCPU).dtype(to_scalar_type(item.type));
  return item.values().detach().to(options).contiguous();
}

uint32_t add_crc(uint32_t crc, const void* bytes, size_t count) {
  if (count == 0) return crc;  // zlib starts over for a null pointer, which an empty tensor has
  return static_cast<uint32_t>(crc32_z(crc, static_cast<const Bytef*>(bytes), count));
}

}  // namespace checkpoint

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata, const WriteOptions& options) {
  checkpoint::save_safetensors(path, checkpoint::write_items(tensors, options), metadata);
}

std::filesystem::path write_sharded_safetensors(const std::filesystem::path& folder,
                                                const std::vector<NamedTensor>& tensors, uint64_t max_shard_bytes,
                                                const std::map<std::string, std::string>& metadata,
                                                const WriteOptions& options) {
  return checkpoint::save_shards(folder, checkpoint::write_items(tensors, options), max_shard_bytes, metadata);
}

void write_pth(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
               const std::string& items_json, const WriteOptions& options, const std::vector<TensorSection>& sections) {
  std::vector<checkpoint::WriteSection> all{{"state_dict", checkpoint::write_items(tensors, options)}};
  for (const auto& section : sections) {
    all.push_back({section.name, checkpoint::write_items(section.tensors, options)});
  }
  checkpoint::save_pth(path, all, items_json);
}

std::vector<NamedTensor> with_sections(std::vector<NamedTensor> tensors, const std::vector<TensorSection>& sections) {
  for (const auto& section : sections) {
    for (const auto& item : section.tensors) tensors.push_back({section.name + "." + item.name, item.tensor});
  }
  return tensors;
}

}  // namespace mdm
