// From one format of checkpoints to another.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "checkpoint/open_file.h"
#include "checkpoint/safetensors_metadata.h"
#include "checkpoint/verify.h"
#include "checkpoint/write_common.h"
#include "mdm/checkpoint/inspect.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

// Entries of the state dict that are no tensors have no place in the file that is written, and tensors are no
// items.
std::string items_beside_tensors(const std::string& json, bool text_encoder) {
  auto items = nlohmann::json::parse(json);
  const bool drops_encoder = text_encoder && items.contains(kTextEncoderSection);
  if (!items.contains("state_dict") && !drops_encoder) return json;
  items.erase("state_dict");
  if (drops_encoder) items.erase(kTextEncoderSection);
  return items.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The text encoder beside the state dict of a .pth, where it has one.
std::optional<TensorFile> text_encoder_of(const std::filesystem::path& source, const ConvertOptions& options) {
  if (options.open.state_dict_path) return std::nullopt;  // that dictionary is asked for and nothing else
  const auto places = inspect_checkpoint(source, options.open).tensor_dictionaries;
  if (std::find(places.begin(), places.end(), kTextEncoderSection) == places.end()) return std::nullopt;
  TensorFile::Options open = options.open;
  open.state_dict_path = kTextEncoderSection;
  return TensorFile::open(source, open);
}

// All tensors under the names that they have in safetensors: those of the text encoder with its prefix.
checkpoint::WriteItems flat_items(const TensorFile& file, const std::optional<TensorFile>& text_encoder,
                                  const WriteOptions& options) {
  auto items = checkpoint::write_items(file, options);
  if (!text_encoder) return items;
  for (auto& item : checkpoint::write_items(*text_encoder, options)) {
    item.name = concat(kTextEncoderSection, ".", item.name);
    items.push_back(std::move(item));
  }
  return items;
}

// The same as the dictionaries of a .pth.
std::vector<checkpoint::WriteSection> sections_of(checkpoint::WriteItems items) {
  const std::string prefix = concat(kTextEncoderSection, ".");
  std::vector<checkpoint::WriteSection> sections{{"state_dict", {}}, {kTextEncoderSection, {}}};
  for (auto& item : items) {
    const bool text = item.name.rfind(prefix, 0) == 0 && item.name.size() > prefix.size();
    if (text) item.name.erase(0, prefix.size());
    sections[text ? 1 : 0].items.push_back(std::move(item));
  }
  if (sections[1].items.empty()) sections.pop_back();
  return sections;
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
  const auto text_encoder = text_encoder_of(source, options);
  const auto tensors = flat_items(file, text_encoder, {options.dtype});
  Conversion result;
  for (const auto& item : tensors) result.bytes += item.bytes();
  result.tensors = tensors.size();
  result.target = target;
  const std::string items = options.items ? items_beside_tensors(file.metadata_json(), text_encoder.has_value()) : "{}";
  std::map<std::string, std::string> metadata{{"format", "pt"}};  // what Hugging Face's readers ask for
  if (options.items) metadata.emplace(checkpoint::kItemsKey, items);
  switch (kind) {
    case TargetKind::kPth: checkpoint::save_pth(target, sections_of(tensors), items); break;
    case TargetKind::kSafetensors: checkpoint::save_safetensors(target, tensors, metadata); break;
    case TargetKind::kShards:
      make_writable_folder(target);
      result.target = checkpoint::save_shards(target, tensors, options.max_shard_bytes, metadata);
      break;
  }
  return result;
}

}  // namespace mdm
