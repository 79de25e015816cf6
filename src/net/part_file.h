// The file that a download writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace mdm::net {

/// A file that a transfer writes, and what it is a part of, in `<target>.part` and `<target>.part.json`. The lock
/// goes with the file: two processes never write the same one. Error when it can't be written.
class PartFile {
 public:
  explicit PartFile(const std::filesystem::path& target);
  ~PartFile();
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  /// What is there of `url`: bytes to go on from, and the validator that says it is still the same.
  uint64_t known(const std::string& url, std::string& validator);

  /// From here on the file holds the answer's resource, from its first byte or (`offset`) going on.
  void begin(const std::string& url, const std::string& validator, uint64_t offset);
  void write(const char* bytes, size_t count);
  uint64_t size() const { return size_; }
  /// Where the bytes are until finish().
  const std::filesystem::path& path() const { return path_; }
  /// Puts the file in the target's place.
  void finish();

 private:
  bool open_locked();
  std::string shown() const;
  [[noreturn]] void broken(const char* what) const;

  std::filesystem::path target_, path_, note_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace mdm::net
