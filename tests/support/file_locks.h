// Puts a flock() of the test's own before the C library's. To be included by one source of a program.
#pragma once

#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

namespace mdm::test_support {

inline int lock_error = 0;                 // that flock() fails with; 0: it does what it should
inline std::function<void()> before_lock;  // called once, by the next flock()

}  // namespace mdm::test_support

extern "C" int flock(int descriptor, int operation) noexcept {
  using mdm::test_support::before_lock;
  if (before_lock) {
    const auto call = std::move(before_lock);
    before_lock = nullptr;
    call();
  }
  if (mdm::test_support::lock_error == 0) return static_cast<int>(::syscall(SYS_flock, descriptor, operation));
  errno = mdm::test_support::lock_error;
  return -1;
}
