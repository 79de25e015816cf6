#include "net/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"

namespace mdm::net {

PartFile::PartFile(const std::filesystem::path& target)
    : target_(target), path_(target.string() + ".part"), note_(target.string() + ".part.json") {
  while (!open_locked()) {
  }
}

PartFile::~PartFile() { ::close(descriptor_); }

uint64_t PartFile::known(const std::string& url, std::string& validator) {
  const off_t end = ::lseek(descriptor_, 0, SEEK_END);
  if (end <= 0) return 0;
  try {
    const auto note =
        nlohmann::json::parse(read_text_file(note_, size_t{64} << 10), nullptr, /*allow_exceptions=*/false);
    if (!note.is_object() || note.value("url", "") != url) return 0;
    validator = note.value("validator", "");
  } catch (const std::exception&) {
    return 0;  // absent, unreadable or of other types: nothing is known about these bytes
  }
  return validator.empty() ? 0 : static_cast<uint64_t>(end);
}

void PartFile::begin(const std::string& url, const std::string& validator, uint64_t offset) {
  if (::ftruncate(descriptor_, static_cast<off_t>(offset)) != 0) broken("can't be cut");
  size_ = offset;
  if (offset > 0) return;
  const nlohmann::json note = {{"url", url}, {"validator", validator}};
  write_file(note_, note.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void PartFile::write(const char* bytes, size_t count) {
  if (!write_at(descriptor_, bytes, count, size_)) broken("can't be written");
  size_ += static_cast<uint64_t>(count);
}

void PartFile::finish() {
  if (::fsync(descriptor_) != 0) broken("can't be written");
  std::error_code code;
  std::filesystem::rename(path_, target_, code);
  if (code) fail(printable(target_.string(), 1000), ": can't be put in place: ", code.message());
  std::filesystem::remove(note_, code);
  if (const int reason = flush_folder(target_.parent_path())) {
    log_warning(printable(target_.string(), 1000),
                ": its folder can't be flushed to disk: ", std::generic_category().message(reason));
  }
}

// False when the file has lost its name before the lock was there: its writer has finished it under the target's.
bool PartFile::open_locked() {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor_ < 0) broken("can't be made");
  const int code = lock_file(descriptor_);
  struct stat opened {};
  struct stat named {};
  const bool in_place = ::fstat(descriptor_, &opened) == 0 && ::stat(path_.c_str(), &named) == 0 &&
                        opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
  const bool free = code == 0 || code == ENOTSUP;  // without locks nothing can be known of others
  if (free && in_place) return true;
  ::close(descriptor_);
  if (free) return false;
  if (code == EWOULDBLOCK) fail(shown(), ": another process is writing it");
  errno = code;
  broken("can't be locked");
}

std::string PartFile::shown() const { return printable(path_.string(), 1000); }

void PartFile::broken(const char* what) const {
  fail(shown(), ": ", what, ": ", std::generic_category().message(errno));
}

}  // namespace mdm::net
