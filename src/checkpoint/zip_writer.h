// Writes the zip archives of PyTorch: entries stored as they are, each one's data beginning at a multiple of
// 64 so that readers can map it. Free of LibTorch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/core/files.h"

namespace mdm::checkpoint {

class ZipWriter {
 public:
  // `always_zip64` writes the records for large files where they aren't needed (for tests).
  explicit ZipWriter(AtomicFile& file, bool always_zip64 = false) : file_(file), always_zip64_(always_zip64) {}

  // One entry: begin with its size, its bytes in any number of pieces, end. Names are ASCII.
  void begin(const std::string& name, uint64_t size);
  void write(const void* bytes, size_t count);
  void end();
  void add(const std::string& name, std::string_view bytes);
  // The directory; nothing may be added after it.
  void finish();

 private:
  struct Entry {
    std::string name;
    uint64_t header = 0, size = 0, written = 0;
    uint32_t crc = 0;
    bool zip64 = false;
  };
  AtomicFile& file_;
  bool always_zip64_;
  std::vector<Entry> entries_;
};

}  // namespace mdm::checkpoint
