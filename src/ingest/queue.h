// Work handed from thread to thread, bounded in bytes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace mdm::ingest {

/// First in, first out. `push` never waits: who fills it looks at bytes() and stops by itself.
template <typename Item>
class Queue {
 public:
  void push(Item item, uint64_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      items_.emplace_back(std::move(item), bytes);
      bytes_ += bytes;
    }
    ready_.notify_one();
  }

  /// The next item; nothing once the queue is closed and empty.
  std::optional<Item> pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait(lock, [this] { return closed_ || !items_.empty(); });
    if (items_.empty()) return std::nullopt;
    std::optional<Item> item(std::move(items_.front().first));
    bytes_ -= items_.front().second;
    items_.pop_front();
    return item;
  }

  /// No more items will come.
  void close() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
  }

  uint64_t bytes() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::pair<Item, uint64_t>> items_;
  uint64_t bytes_ = 0;
  bool closed_ = false;
};

}  // namespace mdm::ingest
