// Writing safetensors, streamed tensor by tensor.
#include <algorithm>
#include <cstdio>
#include <numeric>

#include "checkpoint/json_text.h"
#include "checkpoint/open_file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/write_common.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

// The header: a length, then JSON in the order of the tensors, padded with spaces to a multiple of 8.
std::string safetensors_header(const WriteItems& items, const std::vector<uint64_t>& offsets, const TextMap& metadata) {
  std::string json = "{";
  const auto separate = [&json] {
    if (json.back() != '{') json += ',';
  };
  if (!metadata.empty()) {
    json += R"("__metadata__":{)";
    for (const auto& [key, value] : metadata) {
      separate();
      append_json_string(json, key);
      json += ':';
      append_json_string(json, value);
    }
    json += '}';
  }
  for (size_t i = 0; i < items.size(); ++i) {
    separate();
    append_json_string(json, items[i].name);
    json += concat(R"(:{"dtype":")", info(items[i].type).safetensors, R"(","shape":[)");
    for (size_t d = 0; d < items[i].shape.size(); ++d) json += concat(d > 0 ? "," : "", items[i].shape[d]);
    json += concat(R"(],"data_offsets":[)", offsets[i], ",", offsets[i] + items[i].bytes(), "]}");
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::string header;
  for (int i = 0; i < 8; ++i) header += static_cast<char>(json.size() >> 8 * i & 0xFF);
  return header + json;
}

// Reads the file back under its temporary name: the bytes that were written, and a valid file.
void check_written(const AtomicFile& file, uint32_t crc, size_t tensors) {
  const std::string place = place_of(file.temporary_path());
  const auto bytes = open_bytes(file.temporary_path(), true);
  if (bytes->size() != file.size() || add_crc(0, bytes->data(), bytes->size()) != crc) {
    fail<Error>(place, ": holds other bytes than were written; the disk may be failing");
  }
  if (parse_safetensors(bytes->view(), place).tensors.size() != tensors) {
    fail<Error>(place, ": lost tensors while being written");
  }
}

}  // namespace

void save_safetensors(const std::filesystem::path& path, const WriteItems& items, const TextMap& metadata) {
  for (const auto& item : items) {
    if (item.name == "__metadata__") fail<CheckpointError>("'__metadata__' can't be the name of a tensor");
  }
  for (const auto& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value)) fail<CheckpointError>("metadata '", printable(key), "' is not UTF-8");
  }
  // Largest elements first keeps every tensor aligned to its element without holes.
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return info(items[a].type).size > info(items[b].type).size; });
  std::vector<uint64_t> offsets(items.size());
  uint64_t offset = 0;
  for (const size_t i : order) {
    offsets[i] = offset;
    offset += items[i].bytes();
  }
  AtomicFile file(path);
  const std::string header = safetensors_header(items, offsets, metadata);
  uint32_t crc = add_crc(0, header.data(), header.size());
  file.write(header);
  for (const size_t i : order) {
    const at::Tensor values = written_values(items[i]);
    crc = add_crc(crc, values.const_data_ptr(), values.nbytes());
    file.write(values.const_data_ptr(), values.nbytes());
  }
  check_written(file, crc, items.size());
  file.commit();
}

std::filesystem::path save_shards(const std::filesystem::path& folder, const WriteItems& items,
                                  uint64_t max_shard_bytes, const TextMap& metadata) {
  std::vector<WriteItems> shards(1);
  uint64_t in_shard = 0, total = 0;
  for (const auto& item : items) {
    const uint64_t bytes = item.bytes();
    if (!shards.back().empty() && (bytes > max_shard_bytes || in_shard > max_shard_bytes - bytes)) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(item);
    in_shard += bytes;
    total += bytes;
  }
  if (shards.size() == 1) {
    save_safetensors(folder / "model.safetensors", items, metadata);
    return folder / "model.safetensors";
  }
  std::string index = concat("{\n  \"metadata\": {\"total_size\": ", total, "},\n  \"weight_map\": {");
  const char* separator = "\n    ";
  for (size_t s = 0; s < shards.size(); ++s) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, shards.size());
    save_safetensors(folder / name, shards[s], metadata);
    for (const auto& item : shards[s]) {
      index += separator;
      append_json_string(index, item.name);
      index += concat(": \"", name, "\"");
      separator = ",\n    ";
    }
  }
  const auto path = folder / "model.safetensors.index.json";
  write_file(path, index + "\n  }\n}\n");
  return path;
}

}  // namespace mdm::checkpoint
