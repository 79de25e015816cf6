// System calls that fail on demand. The functions that programs write files with are defined again in this
// executable, which puts them before the C library's; nothing is built into the library itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mdm::training_test {

/// What happens to calls that touch files below `folder`, counted from 1 in the order in which they come.
struct Faults {
  std::string folder;
  std::string call;      ///< "write", "fsync", "close", "rename", "open", "mkdir", "unlink"; empty: all of these
  int64_t kill_at = 0;   ///< the process ends before this call, as by kill -9
  int64_t fail_at = 0;   ///< this call fails with `error`
  bool fail_on = false;  ///< ... and all after it
  int error = 0;
  int64_t disk_bytes = -1;    ///< writes fit into so many bytes, then the disk is full
  bool short_writes = false;  ///< each write takes half of what it is given
  bool interrupted = false;   ///< each other write is interrupted before it begins
  bool trace = false;
};

/// From now on; counting begins anew.
void set_faults(const Faults& faults);
void clear_faults();
/// Calls counted since set_faults().
int64_t faulty_calls();
/// With Faults::trace: "write PATH", "fsync PATH", "rename FROM TO", ...
std::vector<std::string> traced_calls();

}  // namespace mdm::training_test
