// Reading all of a checkpoint to find damage, NaN and infinities.
#include "checkpoint/verify.h"

#include <c10/core/ScalarType.h>

#include <cstring>
#include <ostream>

#include "checkpoint/open_file.h"
#include "checkpoint/shards.h"
#include "checkpoint/torch_archive.h"
#include "checkpoint/write_common.h"
#include "checkpoint/zip_archive.h"
#include "mdm/checkpoint/inspect.h"
#include "mdm/core/error.h"

namespace mdm {
namespace checkpoint {
namespace {

// Counts values whose exponent is all ones: NaN when the fraction is not zero, infinite otherwise.
template <typename Bits>
void count_not_finite(const at::Tensor& values, Bits exponent, Bits fraction, Verification::NotFinite& counts) {
  const auto* bits = static_cast<const Bits*>(values.const_data_ptr());
  const int64_t count = values.numel();
  for (int64_t i = 0; i < count; ++i) {
    if ((bits[i] & exponent) != exponent) continue;
    ++((bits[i] & fraction) != 0 ? counts.nan : counts.infinite);
  }
}

Verification::NotFinite not_finite(const std::string& name, const at::Tensor& tensor) {
  Verification::NotFinite counts;
  counts.name = name;
  const at::Tensor values = tensor.contiguous();
  switch (values.scalar_type()) {
    case at::kDouble: count_not_finite<uint64_t>(values, 0x7FF0000000000000, 0x000FFFFFFFFFFFFF, counts); break;
    case at::kFloat: count_not_finite<uint32_t>(values, 0x7F800000, 0x007FFFFF, counts); break;
    case at::kHalf: count_not_finite<uint16_t>(values, 0x7C00, 0x03FF, counts); break;
    case at::kBFloat16: count_not_finite<uint16_t>(values, 0x7F80, 0x007F, counts); break;
    default: break;
  }
  return counts;
}

// Tensors outside the state dict (optimizer states) must lie in their storages too.
void check_all_tensors(const std::filesystem::path& path, bool map, std::vector<std::string>& problems) {
  const auto bytes = open_bytes(path, map);
  const FileFormat format = recognize_format(bytes->view(), place_of(path));
  if (format == FileFormat::kSafetensors) return;
  const TorchArchive archive(bytes, format);
  size_t number = 0;
  for (const Value& value : archive.arena().values()) {
    if (!is_tensor(value)) continue;
    ++number;
    const auto summary = summarize_tensor(value);
    const bool unreadable = summary && !find_element_type(&ElementTypeInfo::torch_dtype, summary->dtype);
    if (unreadable) continue;  // complex or quantized: sound for all we know
    try {
      archive.tensor(value, concat("number ", number, " of the pickle"));
    } catch (const CheckpointError& error) {
      problems.push_back(error.what());
      if (problems.size() >= 100) return;
    }
  }
}

}  // namespace

RecordChecks check_records(const std::filesystem::path& path, bool map) {
  RecordChecks checks;
  const auto bytes = open_bytes(path, map);
  const std::string place = place_of(path);
  if (recognize_format(bytes->view(), place) != FileFormat::kTorchZip) return checks;
  const ZipArchive zip(bytes->view(), place);
  for (const ZipEntry& entry : zip.entries()) {
    if (entry.crc == 0 && entry.size > 0) {
      ++checks.without_checksum;
      continue;
    }
    ++checks.compared;
    if (!zip.crc_matches(entry)) checks.damaged.emplace_back(entry.name);
  }
  return checks;
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& path, bool map) {
  std::error_code code;
  const auto file = std::filesystem::is_directory(path, code) ? find_weights(path) : path;
  if (!is_index_name(file)) return {file};
  std::vector<std::filesystem::path> files;
  const auto folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const auto index = parse_shard_index(open_bytes(file, map)->view(), place_of(file));
  for (const auto& name : index.files) files.push_back(folder / name);
  return files;
}

}  // namespace checkpoint

Verification verify_checkpoint(const std::filesystem::path& path, const TensorFile::Options& options) {
  Verification result;
  result.path = path;
  try {
    const TensorFile file = TensorFile::open(path, options);  // checks the links of shards, too
    for (const auto& part : checkpoint::files_of(path, options.map)) {
      const auto checks = checkpoint::check_records(part, options.map);
      result.records += checks.compared;
      result.records_unchecked += checks.without_checksum;
      for (const auto& name : checks.damaged) {
        result.problems.push_back(
            concat(checkpoint::place_of(part), ": '", printable(name), "' is damaged (its checksum differs)"));
      }
      checkpoint::check_all_tensors(part, options.map, result.problems);
    }
    for (const auto& entry : file.entries()) {
      ++result.tensors;
      result.values += static_cast<uint64_t>(entry.numel());
      if (!c10::isFloatingType(entry.dtype)) continue;
      auto counts = checkpoint::not_finite(entry.name, checkpoint::tensor_to_copy(file, entry.name));
      if (counts.nan + counts.infinite > 0) result.not_finite.push_back(std::move(counts));
    }
  } catch (const CheckpointError& error) {
    result.problems.push_back(error.what());
  }
  return result;
}

void print_verification(const Verification& verification, std::ostream& out) {
  out << "file: " << printable(verification.path.string(), 1000) << "\n";
  out << verification.tensors << " tensors, " << verification.values << " values\n";
  if (verification.records + verification.records_unchecked > 0) {
    out << verification.records << " checksums compared";
    if (verification.records_unchecked > 0) out << ", " << verification.records_unchecked << " records without one";
    out << "\n";
  }
  for (const auto& item : verification.not_finite) {
    out << "not finite: " << printable(item.name, 400) << ": " << item.nan << " NaN, " << item.infinite
        << " infinite\n";
  }
  for (const auto& problem : verification.problems) out << "problem: " << problem << "\n";
  out << (verification.sound() ? "sound\n" : "DAMAGED\n");
}

}  // namespace mdm
