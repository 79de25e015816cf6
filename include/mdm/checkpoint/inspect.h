// What a user asks of a file of weights: what is in it, is it sound, and the same in another format.
// The `checkpoint` program prints these.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "mdm/checkpoint/tensor_file.h"

namespace mdm {

/// How a name that a pickle wanted imported is treated. Nothing is ever imported or run.
enum class NameVerdict {
  kData,        ///< its meaning is plain data, and is understood
  kUnknown,     ///< kept as a label
  kSuspicious,  ///< belongs to what runs programs, opens files or connections: likely an attack
};

struct PickledName {
  std::string name;  ///< "module.name"
  NameVerdict verdict = NameVerdict::kUnknown;
  size_t count = 0;  ///< how often the pickle names it
};

struct Inspection {
  std::filesystem::path path;
  std::string format;  ///< "safetensors", "PyTorch zip", "PyTorch legacy", with the number of shards
  uint64_t bytes = 0;  ///< of all files together
  std::vector<TensorEntry> tensors;
  std::string metadata_json = "{}";
  std::string state_dict_path;                   ///< where in a .pth the tensors were found; empty: its top
  std::vector<std::string> tensor_dictionaries;  ///< all such places of a .pth
  std::vector<PickledName> names;                ///< of a .pth, suspicious ones first
  std::string problem;                           ///< why no tensors can be listed; empty: none
};

/// Looks into a file, folder or index. Contents that can't be used as weights (a pickled program, tensors
/// that lie) are reported in `problem`; CheckpointError only where the file can't be opened or parsed.
Inspection inspect_checkpoint(const std::filesystem::path& path, const TensorFile::Options& options = {});

/// Lists it for people; text that comes from the file is escaped. The metadata is cut after 4,000 bytes.
void print_inspection(const Inspection& inspection, std::ostream& out);

struct Verification {
  struct NotFinite {
    std::string name;
    uint64_t nan = 0, infinite = 0;
  };
  std::filesystem::path path;
  size_t tensors = 0;
  uint64_t values = 0;
  size_t records = 0;            ///< entries of zip archives whose checksum was compared
  size_t records_unchecked = 0;  ///< entries without a checksum
  std::vector<NotFinite> not_finite;
  std::vector<std::string> problems;  ///< damage; NaN and infinities are not among them
  bool sound() const { return problems.empty(); }
};

/// Reads everything: structure, the checksums of all records, all tensors (also those outside the state
/// dict), NaN and infinities. Damage is listed, not thrown.
Verification verify_checkpoint(const std::filesystem::path& path, const TensorFile::Options& options = {});
void print_verification(const Verification& verification, std::ostream& out);

struct ConvertOptions {
  TensorFile::Options open;
  std::optional<at::ScalarType> dtype;  ///< for floating-point tensors
  uint64_t max_shard_bytes = 0;         ///< > 0: the target is a folder of safetensors shards
  bool items = true;                    ///< carry the other items over (as JSON text in safetensors)
};

struct Conversion {
  std::filesystem::path target;  ///< the file to open
  size_t tensors = 0;
  uint64_t bytes = 0;  ///< of values
};

/// Writes the tensors of `source` to `target`: .safetensors, or .pth, .pt, .ckpt or .bin. ConfigError for
/// another ending or when both are the same file, CheckpointError when the source is damaged (checksums
/// are compared), Error when the target can't be written.
Conversion convert_checkpoint(const std::filesystem::path& source, const std::filesystem::path& target,
                              const ConvertOptions& options = {});

}  // namespace mdm
