#include "ops/kept_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace mdm::ops {
namespace {

constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;

// How much more than the most that was in use may be in use and kept together.
size_t slack(size_t most_in_use) { return std::clamp(most_in_use / 4, size_t{64} << 20, size_t{512} << 20); }

// A kept block serves for at least 7/8 of its size.
bool fits(size_t wanted, size_t block) { return block - wanted <= block / 8; }

}  // namespace

BlockCache::~BlockCache() { release(); }

void* BlockCache::take(size_t bytes) {
  const size_t wanted = (bytes + kPage - 1) / kPage * kPage;
  const std::lock_guard<std::mutex> lock(mutex_);
  size_t size = wanted;
  void* block = nullptr;
  const auto found = by_size_.lower_bound(wanted);
  if (found != by_size_.end() && fits(wanted, found->first)) {
    size = found->first;
    block = found->second->block;
    kept_.erase(found->second);
    by_size_.erase(found);
    state_.kept -= size;
    ++state_.reused_blocks;
  } else {
    // What is kept in other sizes makes room first.
    const size_t most = std::max(state_.most_in_use, state_.in_use + size);
    const size_t allowed = most + slack(most);
    trim(allowed - std::min(allowed, state_.in_use + size));
    block = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) {
      trim(0);
      block = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    TORCH_CHECK_WITH(OutOfMemoryError, block != MAP_FAILED, "can't allocate memory: ", bytes, " bytes are too many");
    if (size >= kHugePage) madvise(block, size, MADV_HUGEPAGE);  // only advice: fewer, larger pages
    ++state_.fresh_blocks;
  }
  in_use_.emplace(block, size);
  state_.in_use += size;
  state_.most_in_use = std::max(state_.most_in_use, state_.in_use);
  return block;
}

bool BlockCache::give_back(void* block) {
  if (reinterpret_cast<uintptr_t>(block) % kPage != 0) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = in_use_.find(block);
  if (found == in_use_.end()) return false;
  const size_t size = found->second;
  in_use_.erase(found);
  state_.in_use -= size;
  by_size_.emplace(size, kept_.insert(kept_.end(), {block, size}));
  state_.kept += size;
  const size_t allowed = state_.most_in_use + slack(state_.most_in_use);
  trim(allowed - state_.in_use);
  return true;
}

void BlockCache::release() {
  const std::lock_guard<std::mutex> lock(mutex_);
  trim(0);
}

KeptMemory BlockCache::state() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return state_;
}

// Gives the longest kept blocks back until at most `most_kept` bytes are left. The mutex is held.
void BlockCache::trim(size_t most_kept) {
  while (state_.kept > most_kept) {
    const auto oldest = kept_.begin();
    auto [first, last] = by_size_.equal_range(oldest->bytes);
    by_size_.erase(std::find_if(first, last, [&](const auto& item) { return item.second == oldest; }));
    munmap(oldest->block, oldest->bytes);
    state_.kept -= oldest->bytes;
    kept_.erase(oldest);
  }
}

namespace {

// Never destroyed: tensors in static variables may outlive everything else.
BlockCache& blocks() {
  static auto* const cache = new BlockCache;
  return *cache;
}

void free_block(void* data) {
  if (data != nullptr && !blocks().give_back(data)) c10::free_cpu(data);
}

class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes >= BlockCache::kLeastBytes ? blocks().take(bytes) : c10::alloc_cpu(bytes);
    return {data, data, &free_block, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

std::atomic<bool> keeping{false};

}  // namespace

void keep_freed_memory() {
  static KeepingAllocator allocator;
  constexpr uint8_t kPriority = 10;  // above LibTorch's default
  c10::SetCPUAllocator(&allocator, kPriority);
  keeping = true;
}

KeptMemory kept_memory() { return keeping ? blocks().state() : KeptMemory(); }

void release_kept_memory() {
  if (keeping) blocks().release();
}

}  // namespace mdm::ops
