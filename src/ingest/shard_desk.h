// The thread that writes shards: everything that changes a file or counts a row happens here, one after the other.
#pragma once

#include <atomic>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "ingest/hash_set.h"
#include "ingest/picture.h"
#include "ingest/queue.h"
#include "ingest/shard.h"

namespace mdm::ingest {

/// What became of a row.
struct Outcome {
  UrlRow row;
  std::string last_url;
  std::variant<Picture, Failure> result;
};

class ShardDesk {
 public:
  /// `rows_per_shard`: ScrapeSettings::samples_per_shard. `finished` counts what is finished already.
  ShardDesk(uint64_t rows_per_shard, bool drop_duplicates, const ScrapeCounts& finished);
  /// Writes what is waiting.
  ~ShardDesk();
  ShardDesk(const ShardDesk&) = delete;
  ShardDesk& operator=(const ShardDesk&) = delete;

  /// The digest of a picture in a finished shard. Before the first open().
  void know(const std::string& sha256);
  void open(std::unique_ptr<OpenShard> shard);
  void put(Outcome outcome);
  /// Bytes that wait to be written.
  uint64_t waiting_bytes() const { return queue_.bytes(); }
  size_t open_shards() const { return open_count_; }
  uint64_t finished_shards() const { return finished_count_; }
  ScrapeCounts counts() const;           ///< of finished and open shards
  ScrapeCounts finished_counts() const;  ///< of finished ones
  /// Waits until all is written; throws what ended the thread.
  void close();
  /// Throws what ended the thread, if it has.
  void check() const;

 private:
  using Message = std::variant<std::unique_ptr<OpenShard>, Outcome>;

  void run();
  void take(Outcome& outcome);
  void finish_if_done(OpenShard& shard);

  uint64_t rows_per_shard_;
  bool drop_duplicates_;
  Queue<Message> queue_;
  HashSet seen_;
  std::map<uint64_t, std::unique_ptr<OpenShard>> shards_;
  std::atomic<size_t> open_count_{0};
  std::atomic<uint64_t> finished_count_{0};
  mutable std::mutex mutex_;  // of what follows
  ScrapeCounts counts_, finished_;
  std::exception_ptr broken_;
  std::thread thread_;
};

}  // namespace mdm::ingest
