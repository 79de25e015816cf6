#include "training/faulty_calls.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdarg>
#include <cstring>
#include <mutex>

namespace mdm::training_test {
namespace {

std::mutex mutex;
Faults faults;
bool active = false;
int64_t calls = 0, writes = 0, written = 0;
std::vector<std::string> trace;

template <typename Function>
Function next_definition(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

std::string path_of(int descriptor) {
  char link[64], target[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t size = ::readlink(link, target, sizeof target);
  return size > 0 ? std::string(target, static_cast<size_t>(size)) : "";
}

std::string path_of(int folder, const char* path) {
  if (path == nullptr || path[0] == '/' || folder == AT_FDCWD) return path == nullptr ? "" : path;
  return path_of(folder) + "/" + path;
}

// What is to be done with a call: 0 to go on, else the error that it shall fail with.
int verdict(const char* call, const std::string& path, const std::string& more = "") {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!active || path.compare(0, faults.folder.size(), faults.folder) != 0) return 0;
  if (!faults.call.empty() && faults.call != call) return 0;
  ++calls;
  if (faults.trace) trace.push_back(std::string(call) + " " + path + (more.empty() ? "" : " " + more));
  if (calls == faults.kill_at) ::raise(SIGKILL);
  if (faults.fail_at > 0 && (calls == faults.fail_at || (faults.fail_on && calls > faults.fail_at)))
    return faults.error;
  return 0;
}

// How many of `count` bytes a write may take; -1 with errno set when it is to fail.
ssize_t allowance(int descriptor, size_t count) {
  const std::string path = path_of(descriptor);
  if (const int error = verdict("write", path)) {
    errno = error;
    return -1;
  }
  const std::lock_guard<std::mutex> lock(mutex);
  if (!active || path.compare(0, faults.folder.size(), faults.folder) != 0) return static_cast<ssize_t>(count);
  if (faults.interrupted && ++writes % 2 == 1) {
    errno = EINTR;
    return -1;
  }
  if (faults.short_writes) count = (count + 1) / 2;
  if (faults.disk_bytes >= 0) {
    const auto left = static_cast<size_t>(std::max<int64_t>(faults.disk_bytes - written, 0));
    if (left == 0 && count > 0) {
      errno = ENOSPC;
      return -1;
    }
    count = std::min(count, left);
    written += static_cast<int64_t>(count);
  }
  return static_cast<ssize_t>(count);
}

}  // namespace

void set_faults(const Faults& wanted) {
  const std::lock_guard<std::mutex> lock(mutex);
  faults = wanted;
  active = true;
  calls = writes = written = 0;
  trace.clear();
}

void clear_faults() {
  const std::lock_guard<std::mutex> lock(mutex);
  active = false;
}

int64_t faulty_calls() { return calls; }
std::vector<std::string> traced_calls() { return trace; }

}  // namespace mdm::training_test

using mdm::training_test::next_definition;
using mdm::training_test::path_of;
using mdm::training_test::verdict;

extern "C" {

ssize_t write(int descriptor, const void* bytes, size_t count) {
  static const auto next = next_definition<ssize_t (*)(int, const void*, size_t)>("write");
  const ssize_t allowed = mdm::training_test::allowance(descriptor, count);
  return allowed < 0 ? -1 : next(descriptor, bytes, static_cast<size_t>(allowed));
}

ssize_t pwrite(int descriptor, const void* bytes, size_t count, off_t offset) {
  static const auto next = next_definition<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  const ssize_t allowed = mdm::training_test::allowance(descriptor, count);
  return allowed < 0 ? -1 : next(descriptor, bytes, static_cast<size_t>(allowed), offset);
}

int fsync(int descriptor) {
  static const auto next = next_definition<int (*)(int)>("fsync");
  if (const int error = verdict("fsync", path_of(descriptor))) {
    errno = error;
    return -1;
  }
  return next(descriptor);
}

int close(int descriptor) {
  static const auto next = next_definition<int (*)(int)>("close");
  const int error = verdict("close", path_of(descriptor));
  const int result = next(descriptor);  // a close that fails closes all the same
  if (error == 0) return result;
  errno = error;
  return -1;
}

int rename(const char* from, const char* to) noexcept {
  static const auto next = next_definition<int (*)(const char*, const char*)>("rename");
  if (const int error = verdict("rename", from, to)) {
    errno = error;
    return -1;
  }
  return next(from, to);
}

int unlink(const char* path) noexcept {
  static const auto next = next_definition<int (*)(const char*)>("unlink");
  if (const int error = verdict("unlink", path)) {
    errno = error;
    return -1;
  }
  return next(path);
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  static const auto next = next_definition<int (*)(int, const char*, int)>("unlinkat");
  if (const int error = verdict("unlink", path_of(folder, path))) {
    errno = error;
    return -1;
  }
  return next(folder, path, flags);
}

int remove(const char* path) noexcept {
  static const auto next = next_definition<int (*)(const char*)>("remove");
  if (const int error = verdict("unlink", path)) {
    errno = error;
    return -1;
  }
  return next(path);
}

int mkdir(const char* path, mode_t mode) noexcept {
  static const auto next = next_definition<int (*)(const char*, mode_t)>("mkdir");
  if (const int error = verdict("mkdir", path)) {
    errno = error;
    return -1;
  }
  return next(path, mode);
}

int open(const char* path, int flags, ...) {
  static const auto next = next_definition<int (*)(const char*, int, ...)>("open");
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = static_cast<mode_t>(va_arg(arguments, int));
    va_end(arguments);
    if (const int error = verdict("open", path)) {
      errno = error;
      return -1;
    }
  }
  return next(path, flags, mode);
}

}  // extern "C"
