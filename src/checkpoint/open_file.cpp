// Which reader a file needs, told by its content, and what it is when no reader fits.
#include "checkpoint/open_file.h"

#include <algorithm>

#include "checkpoint/json_text.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_metadata.h"
#include "checkpoint/shards.h"
#include "checkpoint/torch_file.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

bool begins_with(std::string_view bytes, std::string_view start) { return bytes.substr(0, start.size()) == start; }

// The number 0x1950a86a20f9469cfc6c as every pickle protocol writes it.
constexpr std::string_view kLegacyMagic("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 12);

// What the file seems to be, for the error text; people mix these up.
std::string guess(std::string_view bytes) {
  if (begins_with(bytes, "version https://git-lfs")) {
    return "is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'";
  }
  const std::string_view start = bytes.substr(0, 512);
  for (const std::string_view mark : {"<!DOCTYPE", "<!doctype", "<html", "<HTML"}) {
    if (start.find(mark) != std::string_view::npos) return "is a web page; the download went wrong";
  }
  if (bytes.size() > 262 && bytes.substr(257, 5) == "ustar") {
    return "is a tar archive; files of PyTorch before 0.1.10 are not supported, load and save it with a newer one";
  }
  if (begins_with(bytes, "\x1f\x8b")) return "is gzip-compressed; unpack it first";
  if (begins_with(bytes, "\x93NUMPY")) return "is a NumPy array, not a checkpoint";
  if (begins_with(bytes, "\x89HDF")) return "is an HDF5 file, not a checkpoint";
  if (begins_with(bytes, "GGUF")) return "is a GGUF file, not a checkpoint";
  if (begins_with(bytes, "\x80") && bytes.size() > 1 && bytes[1] >= 2 && bytes[1] <= 5) {
    return "is a bare pickle that torch.save has not written; save it with torch.save";
  }
  if (bytes.size() < 1024 &&
      std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == '\n' || (c >= ' ' && c < 127); })) {
    return concat("is a text file ('", printable(bytes, 40), "')");
  }
  return "is neither safetensors nor a PyTorch checkpoint";
}

}  // namespace

std::string place_of(const std::filesystem::path& path) { return printable(path.string(), 1000); }

std::shared_ptr<const FileBytes> open_bytes(const std::filesystem::path& path, bool map) {
  try {
    return FileBytes::open(path, map ? FileBytes::Mode::kMap : FileBytes::Mode::kRead);
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
}

FileFormat recognize_format(std::string_view bytes, const std::string& place) {
  if (bytes.empty()) fail<CheckpointError>(place, ": is empty");
  if (begins_with(bytes, "PK\x03\x04")) return FileFormat::kTorchZip;
  if (bytes[0] == '\x80' && bytes.substr(0, 32).find(kLegacyMagic) != std::string_view::npos) {
    return FileFormat::kTorchLegacy;
  }
  if (looks_like_safetensors(bytes)) return FileFormat::kSafetensors;
  if (bytes.size() >= 9 && bytes[8] == '{') {
    fail<CheckpointError>(place,
                          ": looks like safetensors, but its header is longer than the file; it is cut off or damaged");
  }
  fail<CheckpointError>(place, ": ", guess(bytes));
}

std::string metadata_to_json(const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::string json;
  bool own = false;
  for (const auto& [key, value] : metadata) {
    if (key != kItemsKey || !is_plain_json_object(value)) continue;
    own = true;
    json = value;
    while (!json.empty() && json.back() != '}') json.pop_back();
    json.pop_back();
    if (json.find('"') == std::string::npos) json = "{";  // no items
  }
  if (json.empty()) json = "{";
  for (const auto& [key, value] : metadata) {
    if (key == kItemsKey || (own && key == "format")) continue;  // "format" is there for other readers
    if (json.size() > 1) json += ", ";
    append_json_string(json, key);
    json += ": ";
    append_json_string(json, value);
  }
  return json + "}";
}

LoadedFile open_single_file(const std::filesystem::path& path, const OpenOptions& options) {
  const std::string place = place_of(path);
  const auto file = open_bytes(path, options.map);
  const FileFormat format = recognize_format(file->view(), place);
  if (format != FileFormat::kSafetensors) return read_torch_file(file, format, options.state_dict_path);
  if (options.state_dict_path) {
    fail<CheckpointError>(place,
                          ": is a safetensors file, which has no dictionaries to choose from by state_dict_path");
  }
  LoadedFile loaded;
  SafetensorsContent content = parse_safetensors(file->view(), place);
  loaded.tensors = std::move(content.tensors);
  loaded.metadata_json = metadata_to_json(content.metadata);
  loaded.files.push_back(file);
  return loaded;
}

LoadedFile open_file(const std::filesystem::path& path, const OpenOptions& options) {
  std::error_code code;
  if (std::filesystem::is_directory(path, code)) {
    const auto weights = find_weights(path);
    return is_index_name(weights) ? open_shards(weights, options) : open_single_file(weights, options);
  }
  return is_index_name(path) ? open_shards(path, options) : open_single_file(path, options);
}

}  // namespace mdm::checkpoint
