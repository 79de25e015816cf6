// Files: read whole or mapped, and written so that a name holds either the old bytes or all the new ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace mdm {

/// A whole regular file, read-only, for as long as the object lives.
/// Mapped by default (pages are shared with the cache and cost no anonymous memory); `kRead` copies
/// it, for file systems on which another process may cut the file while we read (SIGBUS otherwise).
class FileBytes {
 public:
  enum class Mode { kMap, kRead };

  /// Throws DataError when the path is missing, unreadable or no regular file (a FIFO or device would
  /// block or never end).
  static std::shared_ptr<const FileBytes> open(const std::filesystem::path& path, Mode mode = Mode::kMap);

  ~FileBytes();
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view view() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

  /// Takes a part that has been read out of the process's resident memory, pages at its ends included. It
  /// stays valid: what is looked at again comes from the system's cache or the file. Nothing for kRead.
  void release(const uint8_t* first, size_t count) const;

 private:
  FileBytes() = default;
  std::filesystem::path path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
};

/// The text of a regular file of at most `max_bytes`; DataError otherwise.
std::string read_text_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

/// A file that appears under its name only when it is complete: written beside it under a temporary
/// name, flushed to disk, renamed, and the folder flushed. Dropped without commit() it leaves nothing.
/// Every failed write throws Error with the system's reason (disk full, quota, read-only).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* bytes, size_t count);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  /// Overwrites bytes already written (for headers whose sums are known last).
  void write_at(uint64_t offset, const void* bytes, size_t count);
  uint64_t size() const { return size_; }
  /// Where the bytes are until commit().
  const std::filesystem::path& temporary_path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

/// AtomicFile for bytes that are all there.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// Makes the folder (and its parents) and checks that a file can be made in it; Error otherwise.
void make_writable_folder(const std::filesystem::path& folder);

/// Makes what was renamed in a folder last through a crash ("" is the working directory): 0, or why not as an errno.
/// A file system that knows no flushing of folders (EINVAL) is no failure: renames are atomic there all the same.
int flush_folder(const std::filesystem::path& folder);

/// Reads `count` bytes at `offset` of an open file, in as many calls as it takes: how many there were (fewer where
/// the file ends), or -1 with errno.
int64_t read_at(int descriptor, void* target, size_t count, uint64_t offset);

/// Writes likewise; false with errno.
bool write_at(int descriptor, const void* bytes, size_t count, uint64_t offset);

/// Takes the lock of an open file, which goes with the descriptor, without waiting: 0; EWOULDBLOCK when another has
/// it; ENOTSUP when the file system has no locks; else the errno.
int lock_file(int descriptor);

}  // namespace mdm
