// Makes checkpoint files byte by byte, sound or broken on purpose, and measures what opening them costs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace mdm::checkpoint_tests {

/// A folder of its own for one test, removed with all its content.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& bytes) const;

 private:
  std::filesystem::path path_;
};

std::string little(uint64_t value, int bytes);

// Pieces of pickles (protocol 2).
std::string pickle_text(const std::string& text);
std::string pickle_int(int64_t value);
std::string pickle_global(const std::string& module, const std::string& name);
std::string pickle_tuple(const std::vector<std::string>& items);
std::string pickle_storage(const std::string& type, const std::string& key, int64_t numel);
/// _rebuild_tensor_v2(storage, offset, sizes, strides, False, OrderedDict()).
std::string pickle_tensor(const std::string& storage, int64_t offset, const std::vector<int64_t>& sizes,
                          const std::vector<int64_t>& strides);
std::string pickle_dict(const std::vector<std::pair<std::string, std::string>>& items);  // values are pieces
/// PROTO 2, the piece, STOP.
std::string pickle(const std::string& piece);

struct ZipRecord {
  std::string name, data;
  // What the headers say, where that differs from the truth.
  std::string local_name;  // empty: name
  uint16_t flags = 0, method = 0;
  int64_t claimed_size = -1, claimed_stored = -1, header_offset = -1;
  uint32_t attributes = 0;
  uint16_t made_by = 20;
  bool no_crc = false, wrong_crc = false;
};

struct ZipFile {
  std::vector<ZipRecord> records;
  std::string comment, before_directory, after_directory;
  int64_t claimed_count = -1, claimed_directory = -1;
  bool zip64 = false;
  int64_t zip64_record = -1, zip64_count = -1, zip64_directory = -1;
  std::string bytes() const;
};

/// A zip checkpoint with this pickle and these storages (key, bytes).
ZipFile pth(const std::string& pickle_bytes, const std::vector<std::pair<std::string, std::string>>& storages = {});

/// A file in the legacy layout, with its parts as they are given.
std::string legacy_pth(const std::string& pickle_bytes, const std::string& keys_pickle, const std::string& storages);

std::string safetensors(const std::string& json, const std::string& data);

/// How a file was taken.
struct Outcome {
  bool opened = false;
  std::string error;   // of a CheckpointError
  double seconds = 0;  // of computing
  size_t grown = 0;    // peak of resident memory over what it was before, in bytes
};

/// Opens the file and reads all its tensors. Other exceptions than CheckpointError pass.
Outcome try_open(const std::filesystem::path& path);

/// Expects a CheckpointError that names the file and holds `fragment`, soon and within memory.
void expect_refused(const std::filesystem::path& path, const std::string& fragment);
/// Expects an error or success, soon and within memory.
Outcome expect_bounded(const std::filesystem::path& path);

}  // namespace mdm::checkpoint_tests
