// Listing what a checkpoint holds.
#include "mdm/checkpoint/inspect.h"

#include <c10/core/ScalarType.h>

#include <ostream>
#include <set>

#include "checkpoint/open_file.h"
#include "checkpoint/pickled_names.h"
#include "checkpoint/shards.h"
#include "checkpoint/torch_file.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using checkpoint::FileFormat;

constexpr size_t kMaxPrintedMetadata = 4000;

const char* format_name(FileFormat format) {
  switch (format) {
    case FileFormat::kSafetensors: return "safetensors";
    case FileFormat::kTorchZip: return "PyTorch zip";
    case FileFormat::kTorchLegacy: return "PyTorch legacy";
  }
  return "";
}

void inspect_torch(const std::shared_ptr<const FileBytes>& file, FileFormat format, const TensorFile::Options& options,
                   Inspection& inspection) {
  const checkpoint::TorchArchive archive(file, format);
  inspection.names = checkpoint::pickled_names(archive.arena());
  inspection.tensor_dictionaries = checkpoint::paths_with_tensors(archive.root());
  try {
    inspection.state_dict_path = checkpoint::choose_state_dict(archive, options.state_dict_path).path;
  } catch (const CheckpointError& error) {
    inspection.problem = error.what();
  }
}

std::string human_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string shape_text_of(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t d = 0; d < shape.size(); ++d) text += concat(d > 0 ? ", " : "", shape[d]);
  return text + ")";
}

void print_names(const Inspection& inspection, std::ostream& out) {
  const auto section = [&](NameVerdict verdict, const char* title) {
    bool first = true;
    for (const auto& name : inspection.names) {
      if (name.verdict != verdict) continue;
      if (first) out << title << "\n";
      first = false;
      out << "  " << printable(name.name) << " (" << name.count << "x)\n";
    }
  };
  section(NameVerdict::kSuspicious, "SUSPICIOUS names in the pickle (not executed; do not load this file elsewhere):");
  section(NameVerdict::kUnknown, "unknown names in the pickle (kept as labels, not executed):");
}

}  // namespace

Inspection inspect_checkpoint(const std::filesystem::path& path, const TensorFile::Options& options) {
  Inspection inspection;
  inspection.path = path;
  std::error_code code;
  const bool folder = std::filesystem::is_directory(path, code);
  const auto main_file = folder ? checkpoint::find_weights(path) : path;
  std::set<FileFormat> formats;
  const auto look = [&](const std::filesystem::path& name) {
    const auto file = checkpoint::open_bytes(name, options.map);
    const FileFormat format = checkpoint::recognize_format(file->view(), checkpoint::place_of(name));
    formats.insert(format);
    inspection.bytes += file->size();
    if (format != FileFormat::kSafetensors) inspect_torch(file, format, options, inspection);
  };
  size_t shards = 0;
  if (checkpoint::is_index_name(main_file)) {
    const auto json = checkpoint::open_bytes(main_file, options.map);
    const auto index = checkpoint::parse_shard_index(json->view(), checkpoint::place_of(main_file));
    const auto opened = checkpoint::open_shards(main_file, {options.map, options.state_dict_path});
    for (const auto& file : opened.files) look(file->path());
    shards = index.files.size();
  } else {
    look(main_file);
  }
  for (const FileFormat format : formats) {
    inspection.format += concat(inspection.format.empty() ? "" : " and ", format_name(format));
  }
  if (shards > 0) inspection.format += concat(", ", shards, " shards");
  if (!inspection.problem.empty()) return inspection;
  try {
    const TensorFile file = TensorFile::open(path, options);
    inspection.tensors = file.entries();
    inspection.metadata_json = file.metadata_json();
  } catch (const CheckpointError& error) {
    inspection.problem = error.what();
  }
  return inspection;
}

void print_inspection(const Inspection& inspection, std::ostream& out) {
  out << "file: " << printable(inspection.path.string(), 1000) << "\n";
  out << "format: " << inspection.format << ", " << human_bytes(inspection.bytes) << "\n";
  print_names(inspection, out);
  if (!inspection.problem.empty()) {
    out << "problem: " << inspection.problem << "\n";
    return;
  }
  if (!inspection.state_dict_path.empty()) {
    out << "tensors at: " << printable(inspection.state_dict_path) << "\n";
  }
  for (const auto& other : inspection.tensor_dictionaries) {
    if (other != inspection.state_dict_path) {
      out << "other tensors at: " << (other.empty() ? "the top level" : printable(other)) << "\n";
    }
  }
  const std::string& metadata = inspection.metadata_json;
  if (metadata != "{}") out << "metadata: " << printable(metadata, kMaxPrintedMetadata) << "\n";
  uint64_t values = 0, bytes = 0;
  for (const auto& tensor : inspection.tensors) {
    const auto count = static_cast<uint64_t>(tensor.numel());
    values += count;
    bytes += count * c10::elementSize(tensor.dtype);
    out << printable(tensor.name, 400) << "\t" << shape_text_of(tensor.shape) << "\t" << c10::toString(tensor.dtype)
        << "\t" << human_bytes(count * c10::elementSize(tensor.dtype)) << "\n";
  }
  out << inspection.tensors.size() << " tensors, " << values << " values, " << human_bytes(bytes) << "\n";
}

}  // namespace mdm
