#include "mdm/core/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

std::string reason(int code) { return std::strerror(code); }

std::string shown(const std::filesystem::path& path) { return printable(path.string(), 1000); }

// Closes a descriptor when an error leaves the scope.
struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

std::shared_ptr<const FileBytes> FileBytes::open(const std::filesystem::path& path, Mode mode) {
  // O_NONBLOCK: opening a FIFO without a writer must not hang.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.value < 0) fail<DataError>(shown(path), ": ", reason(errno));
  struct stat info {};
  if (::fstat(file.value, &info) != 0) fail<DataError>(shown(path), ": ", reason(errno));
  if (S_ISDIR(info.st_mode)) fail<DataError>(shown(path), ": is a directory, not a file");
  if (!S_ISREG(info.st_mode)) fail<DataError>(shown(path), ": is not a regular file");

  std::shared_ptr<FileBytes> bytes(new FileBytes);
  bytes->path_ = path;
  bytes->size_ = static_cast<size_t>(info.st_size);
  if (bytes->size_ == 0) return bytes;
  if (mode == Mode::kMap) {
    void* mapped = ::mmap(nullptr, bytes->size_, PROT_READ, MAP_PRIVATE, file.value, 0);
    if (mapped == MAP_FAILED) fail<DataError>(shown(path), ": ", reason(errno));
    bytes->data_ = static_cast<const uint8_t*>(mapped);
    bytes->mapped_ = true;
    return bytes;
  }
  std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes->size_]);
  const int64_t got = read_at(file.value, copy.get(), bytes->size_, 0);
  if (got < 0) fail<DataError>(shown(path), ": ", reason(errno));
  if (static_cast<size_t>(got) < bytes->size_) {
    fail<DataError>(shown(path), ": ends after ", got, " of ", bytes->size_, " bytes");
  }
  bytes->data_ = copy.release();
  return bytes;
}

void FileBytes::release(const uint8_t* first, size_t count) const {
  if (!mapped_ || count == 0) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t start = static_cast<size_t>(first - data_) / page * page;  // the mapping begins at a page
  const size_t end = std::min(static_cast<size_t>(first - data_) + count, size_);
  ::madvise(const_cast<uint8_t*>(data_) + start, end - start, MADV_DONTNEED);  // a hint: failing is no harm
}

FileBytes::~FileBytes() {
  if (mapped_) {
    ::munmap(const_cast<uint8_t*>(data_), size_);
  } else {
    delete[] data_;
  }
}

std::string read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  const auto bytes = FileBytes::open(path, FileBytes::Mode::kMap);
  if (bytes->size() > max_bytes) {
    fail<DataError>(shown(path), ": has ", bytes->size(), " bytes, more than the ", max_bytes, " allowed here");
  }
  return std::string(bytes->view());
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  static std::atomic<uint64_t> counter{0};
  temporary_ = path_;
  temporary_ += concat(".tmp.", ::getpid(), ".", counter.fetch_add(1));
  descriptor_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail<Error>(shown(path_), ": can't be written: ", reason(errno));
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* bytes, size_t count) {
  write_at(size_, bytes, count);
  size_ += static_cast<uint64_t>(count);
}

void AtomicFile::write_at(uint64_t offset, const void* bytes, size_t count) {
  if (!mdm::write_at(descriptor_, bytes, count, offset))
    fail<Error>(shown(path_), ": can't be written: ", reason(errno));
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail<Error>(shown(path_), ": can't be flushed to disk: ", reason(errno));
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0 || static_cast<uint64_t>(info.st_size) < size_) {
    fail<Error>(shown(path_), ": the file system kept fewer bytes than were written");
  }
  const int handle = descriptor_;
  descriptor_ = -1;
  if (::close(handle) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    fail<Error>(shown(path_), ": can't be closed: ", reason(code));
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    fail<Error>(shown(path_), ": can't be put in place: ", reason(code));
  }
  if (const int code = flush_folder(path_.parent_path())) {
    log_warning(shown(path_), ": its folder can't be flushed to disk: ", reason(code));
  }
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void make_writable_folder(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) fail<Error>(shown(folder), ": can't be made: ", code.message());
  if (!std::filesystem::is_directory(folder, code)) fail<Error>(shown(folder), ": is not a folder");
  try {
    AtomicFile probe(folder / ".mdm_write_check");  // never committed, so nothing stays
  } catch (const Error&) {
    fail<Error>(shown(folder), ": is not writable");
  }
}

int flush_folder(const std::filesystem::path& folder) {
  const Descriptor handle{::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (handle.value < 0) return errno;
  return ::fsync(handle.value) == 0 || errno == EINVAL ? 0 : errno;
}

int64_t read_at(int descriptor, void* target, size_t count, uint64_t offset) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(descriptor, static_cast<char*>(target) + done, count - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return static_cast<int64_t>(done);
}

bool write_at(int descriptor, const void* bytes, size_t count, uint64_t offset) {
  size_t done = 0;
  while (done < count) {
    const ssize_t put =
        ::pwrite(descriptor, static_cast<const char*>(bytes) + done, count - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put == 0) errno = ENOSPC;
    if (put <= 0) return false;
    done += static_cast<size_t>(put);
  }
  return true;
}

int lock_file(int descriptor) {
  while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    return errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK ? ENOTSUP : errno;
  }
  return 0;
}

}  // namespace mdm
