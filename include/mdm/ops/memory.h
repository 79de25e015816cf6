// Memory that was freed: when it goes back to the system, and when it is kept for the next tensor.
#pragma once

#include <cstddef>

namespace mdm::ops {

/// Gives freed memory back to the system: what the C library still keeps (glibc), and what keep_freed_memory()
/// keeps. Packing frees each weight after its packed form was made; the holes it leaves in the heap otherwise
/// stay resident: 30 % of a full-size model.
void return_freed_memory();

/// For programs, since it changes the whole process, and for good: the memory of CPU tensors of 1 MiB and more is kept
/// when they are freed, for the next tensors of about that size. The C library gives blocks of more than 32 MiB back
/// at once, and to get fresh pages for the next one takes longer than most operations on them: a third of a step
/// of the 1024-pixel model. What is in use and what is kept are together at most a quarter (but at least 64 MiB and at
/// most 512 MiB) more than the most that was in use at a time. May be called again.
void keep_freed_memory();

/// Bytes of tensors of 1 MiB and more, since keep_freed_memory().
struct KeptMemory {
  size_t in_use = 0, kept = 0, most_in_use = 0;
  size_t fresh_blocks = 0, reused_blocks = 0;  ///< how often memory came from the system, and how often it was there
};
KeptMemory kept_memory();

}  // namespace mdm::ops
