// The directory of a zip file, read strictly: one way to read it or none. Free of LibTorch.
// Format: PKWARE APPNOTE 6.3 with zip64; what we write is in zip_writer.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mdm::checkpoint {

struct ZipEntry {
  std::string_view name;  // in the file's bytes
  uint64_t offset = 0;    // of its data
  uint64_t stored_size = 0;
  uint64_t size = 0;  // unpacked; equal to stored_size when not compressed
  uint32_t crc = 0;   // 0: may be "not computed"
  bool deflated = false;
};

class ZipArchive {
 public:
  // Reads the directory and checks it against the local headers and the size of the file. The names and
  // the contents point into `bytes`. CheckpointError beginning with `place` otherwise.
  ZipArchive(std::string_view bytes, std::string place);

  const std::vector<ZipEntry>& entries() const { return entries_; }  // in the order of the directory
  const ZipEntry* find(std::string_view name) const;

  // The bytes of an entry that is not compressed; CheckpointError for one that is.
  std::string_view stored(const ZipEntry& entry) const;
  // The unpacked content of a deflated entry, of at most `max_bytes`.
  std::string inflate(const ZipEntry& entry, size_t max_bytes) const;
  // Whether the content fits the checksum; a checksum of 0 counts as "not computed" and fits.
  bool crc_matches(const ZipEntry& entry) const;

 private:
  template <typename... Parts>
  [[noreturn]] void wrong(const Parts&... parts) const;
  uint64_t little(uint64_t offset, int count) const;
  struct Directory {
    uint64_t begin, end, count;
  };
  Directory find_directory() const;
  void read_directory(const Directory& directory);
  void read_zip64(ZipEntry& entry, std::string_view extra, uint64_t& header) const;
  void check_name(std::string_view name) const;
  void locate(ZipEntry& entry, uint64_t header, uint16_t flags, uint16_t method) const;
  void check_overlaps(const Directory& directory);

  std::string_view bytes_;
  std::string place_;
  std::vector<ZipEntry> entries_;
  std::vector<uint64_t> headers_;  // where the local header of entries_[i] begins
  std::vector<uint32_t> by_name_;
};

}  // namespace mdm::checkpoint
