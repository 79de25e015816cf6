// From one format of checkpoints to another.
#include <nlohmann/json.hpp>

#include "checkpoint/open_file.h"
#include "checkpoint/safetensors_metadata.h"
#include "checkpoint/verify.h"
#include "checkpoint/write_common.h"
#include "mdm/checkpoint/inspect.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

// Entries of the state dict that are no tensors have no place in the file that is written.
std::string items_without_state_dict(const std::string& json) {
  auto items = nlohmann::json::parse(json);
  if (!items.contains("state_dict")) return json;
  items.erase("state_dict");
  return items.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

enum class TargetKind { kSafetensors, kPth, kShards };

TargetKind target_kind(const std::filesystem::path& target, const ConvertOptions& options) {
  if (options.max_shard_bytes > 0) return TargetKind::kShards;
  const std::string ending = target.extension().string();
  if (ending == ".safetensors") return TargetKind::kSafetensors;
  for (const char* known : {".pth", ".pt", ".ckpt", ".bin"}) {
    if (ending == known) return TargetKind::kPth;
  }
  fail<ConfigError>(checkpoint::place_of(target), ": the ending '", printable(ending),
                    "' names no format; .safetensors, .pth, .pt, .ckpt and .bin are possible");
}

}  // namespace

Conversion convert_checkpoint(const std::filesystem::path& source, const std::filesystem::path& target,
                              const ConvertOptions& options) {
  const TargetKind kind = target_kind(target, options);
  std::error_code code;
  if (std::filesystem::equivalent(source, target, code)) {
    fail<ConfigError>(checkpoint::place_of(target), ": is the source itself");
  }
  const TensorFile file = TensorFile::open(source, options.open);
  for (const auto& part : checkpoint::files_of(source, options.open.map)) {
    const auto checks = checkpoint::check_records(part, options.open.map);
    if (!checks.damaged.empty()) {
      fail<CheckpointError>(checkpoint::place_of(part), ": '", printable(checks.damaged[0]),
                            "' is damaged (its checksum differs)");
    }
  }
  const auto tensors = checkpoint::write_items(file, {options.dtype});
  Conversion result;
  for (const auto& item : tensors) result.bytes += item.bytes();
  result.tensors = tensors.size();
  result.target = target;
  const std::string items = options.items ? items_without_state_dict(file.metadata_json()) : "{}";
  std::map<std::string, std::string> metadata{{"format", "pt"}};  // what Hugging Face's readers ask for
  if (options.items) metadata.emplace(checkpoint::kItemsKey, items);
  switch (kind) {
    case TargetKind::kPth: checkpoint::save_pth(target, tensors, items); break;
    case TargetKind::kSafetensors: checkpoint::save_safetensors(target, tensors, metadata); break;
    case TargetKind::kShards:
      make_writable_folder(target);
      result.target = checkpoint::save_shards(target, tensors, options.max_shard_bytes, metadata);
      break;
  }
  return result;
}

}  // namespace mdm
