#include "ingest/shard_desk.h"

namespace mdm::ingest {
ShardDesk::ShardDesk(uint64_t rows_per_shard, bool drop_duplicates, const ScrapeCounts& finished)
    : rows_per_shard_(rows_per_shard),
      drop_duplicates_(drop_duplicates),
      counts_(finished),
      finished_(finished),
      thread_([this] { run(); }) {}

ShardDesk::~ShardDesk() {
  queue_.close();
  if (thread_.joinable()) thread_.join();
}

void ShardDesk::know(const std::string& sha256) { seen_.insert(hash_of(sha256)); }

void ShardDesk::open(std::unique_ptr<OpenShard> shard) {
  ++open_count_;
  queue_.push(std::move(shard), 0);
}

void ShardDesk::put(Outcome outcome) {
  const Picture* picture = std::get_if<Picture>(&outcome.result);
  const uint64_t bytes = picture == nullptr ? 0 : picture->bytes.size();
  queue_.push(std::move(outcome), bytes);
}

ScrapeCounts ShardDesk::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

ScrapeCounts ShardDesk::finished_counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return finished_;
}

void ShardDesk::close() {
  queue_.close();
  if (thread_.joinable()) thread_.join();
  check();
}

void ShardDesk::check() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (broken_) std::rethrow_exception(broken_);
}

void ShardDesk::run() {
  try {
    while (auto message = queue_.pop()) {
      if (auto* shard = std::get_if<std::unique_ptr<OpenShard>>(&*message)) {
        for (const std::string& digest : (*shard)->digests()) seen_.insert(hash_of(digest));
        OpenShard& kept = *(shards_[(*shard)->rows().number] = std::move(*shard));
        {
          const std::lock_guard<std::mutex> lock(mutex_);
          counts_.add(kept.counts());
        }
        finish_if_done(kept);
      } else {
        take(std::get<Outcome>(*message));
      }
    }
  } catch (...) {
    const std::lock_guard<std::mutex> lock(mutex_);
    broken_ = std::current_exception();
  }
  shards_.clear();
}

void ShardDesk::take(Outcome& outcome) {
  OpenShard& shard = *shards_.at(outcome.row.number / rows_per_shard_);
  if (const auto* picture = std::get_if<Picture>(&outcome.result)) {
    if (!seen_.insert(hash_of(picture->sha256)) && drop_duplicates_) {
      outcome.result =
          Failure{"duplicate_content", "another URL gave the same bytes (SHA-256 " + picture->sha256 + ')'};
    }
  }
  if (const auto* picture = std::get_if<Picture>(&outcome.result)) {
    shard.add(outcome.row, outcome.last_url, *picture);
    const std::lock_guard<std::mutex> lock(mutex_);
    ++counts_.pictures;
    counts_.picture_bytes += picture->bytes.size();
  } else {
    const auto& failure = std::get<Failure>(outcome.result);
    shard.fail_row(outcome.row, failure);
    const std::lock_guard<std::mutex> lock(mutex_);
    ++counts_.failures[failure.cause];
  }
  finish_if_done(shard);
}

void ShardDesk::finish_if_done(OpenShard& shard) {
  if (shard.left() > 0) return;
  shard.finish();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    finished_.add(shard.counts());
  }
  ++finished_count_;
  --open_count_;
  shards_.erase(shard.rows().number);
}

}  // namespace mdm::ingest
