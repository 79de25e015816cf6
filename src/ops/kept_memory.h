// The allocator behind keep_freed_memory(); separate, so that tests can have one of their own.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>

#include "mdm/ops/memory.h"

namespace mdm::ops {

// Blocks from the system, of whole pages. Thread-safe.
class BlockCache {
 public:
  static constexpr size_t kLeastBytes = size_t{1} << 20;  // smaller ones are the C library's affair

  ~BlockCache();
  void* take(size_t bytes);     // c10::Error when there is no memory, as LibTorch's own allocator throws
  bool give_back(void* block);  // false: not one of ours
  void release();               // all that is kept, to the system
  KeptMemory state() const;

 private:
  struct Kept {
    void* block;
    size_t bytes;
  };
  using Order = std::list<Kept>;  // the longest kept first

  void trim(size_t most_kept);

  mutable std::mutex mutex_;
  std::unordered_map<void*, size_t> in_use_;
  Order kept_;
  std::multimap<size_t, Order::iterator> by_size_;
  KeptMemory state_;
};

void release_kept_memory();

}  // namespace mdm::ops
