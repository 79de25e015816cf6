#include "mdm/core/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "mdm/core/error.h"

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

void read_fully(int descriptor, uint8_t* target, size_t count, const std::filesystem::path& path) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got = ::read(descriptor, target + done, count - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail<DataError>(shown(path), ": ", reason(errno));
    if (got == 0) fail<DataError>(shown(path), ": ends after ", done, " of ", count, " bytes");
    done += static_cast<size_t>(got);
  }
}

void flush_folder(const std::filesystem::path& folder) {
  Descriptor handle{::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  // Some network file systems refuse fsync of a folder; the rename itself is still atomic there.
  if (handle.value >= 0) (void)::fsync(handle.value);
}

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
  read_fully(file.value, copy.get(), bytes->size_, path);
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
  const auto* source = static_cast<const uint8_t*>(bytes);
  while (count > 0) {
    const ssize_t done = ::write(descriptor_, source, count);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail<Error>(shown(path_), ": can't be written: ", reason(errno));
    source += done;
    count -= static_cast<size_t>(done);
    size_ += static_cast<uint64_t>(done);
  }
}

void AtomicFile::write_at(uint64_t offset, const void* bytes, size_t count) {
  const auto* source = static_cast<const uint8_t*>(bytes);
  while (count > 0) {
    const ssize_t done = ::pwrite(descriptor_, source, count, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail<Error>(shown(path_), ": can't be written: ", reason(errno));
    source += done;
    offset += static_cast<uint64_t>(done);
    count -= static_cast<size_t>(done);
  }
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
  flush_folder(path_.parent_path());
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

}  // namespace mdm
