// Reading at places of archives that many threads share. By pread and not by a map: a file that another process cuts
// while we read must give an error, not SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

namespace mdm::detail {

/// One open regular file.
class ArchiveFile {
 public:
  /// DataError when it is missing or no regular file.
  explicit ArchiveFile(const std::filesystem::path& path);
  ~ArchiveFile();
  ArchiveFile(const ArchiveFile&) = delete;
  ArchiveFile& operator=(const ArchiveFile&) = delete;

  uint64_t size() const { return size_; }
  /// False when the file ends before; DataError when the system can't read it.
  bool read_at(uint64_t offset, void* target, size_t count) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

/// Files opened when they are needed; those used longest ago are closed when there are more than `most`.
class ArchivePool {
 public:
  ArchivePool(std::vector<std::filesystem::path> paths, int64_t most);
  std::shared_ptr<const ArchiveFile> get(size_t file);

 private:
  struct Entry {
    std::shared_ptr<const ArchiveFile> file;
    std::list<size_t>::iterator place;
  };
  std::mutex mutex_;
  std::vector<std::filesystem::path> paths_;
  std::vector<Entry> entries_;
  std::list<size_t> used_;  // open ones, the last used in front
  size_t most_;
};

}  // namespace mdm::detail
