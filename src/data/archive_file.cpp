#include "data/archive_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm::detail {
namespace {

std::string shown_path(const std::filesystem::path& path) { return printable(path.string(), 1000); }

}  // namespace

ArchiveFile::ArchiveFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: opening a FIFO without a writer must not hang.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail<DataError>(shown_path(path_), ": ", std::strerror(errno));
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor_);
    fail<DataError>(shown_path(path_), ": is not a regular file");
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

ArchiveFile::~ArchiveFile() { ::close(descriptor_); }

bool ArchiveFile::read_at(uint64_t offset, void* target, size_t count) const {
  const int64_t got = mdm::read_at(descriptor_, target, count, offset);
  if (got < 0) fail<DataError>(shown_path(path_), ": ", std::strerror(errno));
  return static_cast<size_t>(got) == count;
}

ArchivePool::ArchivePool(std::vector<std::filesystem::path> paths, int64_t most)
    : paths_(std::move(paths)), entries_(paths_.size()) {
  rlimit limit{};
  const bool known = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  const size_t half = known ? std::max<size_t>(limit.rlim_cur / 2, 1) : 4096;
  most_ = most < 1 ? half : std::min(static_cast<size_t>(most), half);
}

std::shared_ptr<const ArchiveFile> ArchivePool::get(size_t file) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Entry& entry = entries_[file];
  if (entry.file) {
    used_.splice(used_.begin(), used_, entry.place);
    return entry.file;
  }
  entry.file = std::make_shared<const ArchiveFile>(paths_[file]);
  used_.push_front(file);
  entry.place = used_.begin();
  if (used_.size() > most_) {
    entries_[used_.back()].file.reset();
    used_.pop_back();
  }
  return entry.file;
}

}  // namespace mdm::detail
