#include "ingest/walk.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "data/threads.h"

namespace mdm::ingest {
namespace {

constexpr size_t kChunk = 32;  // samples that a thread takes at a time

// An archive on its way, cut into chunks of samples.
struct Work {
  WalkedArchive archive;
  std::vector<std::vector<Fault>> faults;  // by chunk
  size_t next = 0;                         // the chunk that is to be looked at next
  size_t left = 0;                         // chunks that are not finished
  bool open = false;
  bool done() const { return open && left == 0; }
};

class Walk {
 public:
  Walk(std::vector<ListedArchive>& archives, const WalkOptions& options,
       const std::function<void(const WalkedArchive&)>& take)
      : archives_(archives), options_(options), take_(take) {}

  bool run() {
    const auto machine = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const int threads = options_.threads > 0 ? options_.threads : machine;
    // More open ones than threads, so that a large archive doesn't hold up those behind it.
    most_open_ = static_cast<size_t>(threads) + 2;
    detail::run_on_threads(threads, [this] { work(); });
    if (error_) std::rethrow_exception(error_);
    return taken_ == archives_.size();
  }

 private:
  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    try {
      while (!error_ && !stopped() && taken_ < archives_.size()) {
        if (Work* with_chunk = find_chunk()) {
          examine(*with_chunk, with_chunk->next++, lock);
        } else if (opened_ < archives_.size() && on_the_way_.size() < most_open_) {
          open(opened_++, lock);
        } else {
          ready_.wait(lock);
        }
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (!error_) error_ = std::current_exception();
    }
    ready_.notify_all();
  }

  bool stopped() const { return options_.stop != nullptr && options_.stop->load(); }

  Work* find_chunk() {
    for (auto& [number, work] : on_the_way_) {
      if (work->open && work->next < work->faults.size()) return work.get();
    }
    return nullptr;
  }

  void open(size_t number, std::unique_lock<std::mutex>& lock) {
    Work& work = *on_the_way_.emplace(number, std::make_unique<Work>()).first->second;
    lock.unlock();
    work.archive.number = number;
    work.archive.listed = &archives_[number];
    open_archive(work.archive, options_);
    const size_t samples = work.archive.samples.size();
    work.archive.facts.resize(samples);
    work.faults.resize((samples + kChunk - 1) / kChunk);
    work.left = work.faults.size();
    lock.lock();
    work.open = true;
    ready_.notify_all();
    if (work.done()) finish();
  }

  void examine(Work& work, size_t chunk, std::unique_lock<std::mutex>& lock) {
    lock.unlock();
    const size_t first = chunk * kChunk, last = std::min(first + kChunk, work.archive.samples.size());
    uint64_t bytes = 0;
    for (size_t i = first; i < last && !stopped(); ++i) {
      examine_sample(work.archive, i, options_, work.archive.facts[i], work.faults[chunk]);
      bytes += work.archive.facts[i].image_bytes;
    }
    lock.lock();
    if (stopped()) return;  // and the archive stays unfinished
    if (options_.advance) options_.advance(bytes, last - first);
    if (--work.left == 0) finish();
  }

  // Hands on what is finished, as far as the order allows. With the lock.
  void finish() {
    while (!on_the_way_.empty() && on_the_way_.begin()->first == taken_ && on_the_way_.begin()->second->done()) {
      Work& work = *on_the_way_.begin()->second;
      for (auto& faults : work.faults) {
        std::move(faults.begin(), faults.end(), std::back_inserter(work.archive.faults));
      }
      take_(work.archive);
      archives_[taken_].rows = {};
      archives_[taken_].texts = {};
      ++taken_;
      on_the_way_.erase(on_the_way_.begin());
    }
    ready_.notify_all();
  }

  std::vector<ListedArchive>& archives_;
  const WalkOptions& options_;
  const std::function<void(const WalkedArchive&)>& take_;
  size_t most_open_ = 0;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::map<size_t, std::unique_ptr<Work>> on_the_way_;
  size_t opened_ = 0;  // how many were begun
  size_t taken_ = 0;   // how many were handed on
  std::exception_ptr error_;
};

}  // namespace

bool walk(std::vector<ListedArchive>& archives, const WalkOptions& options,
          const std::function<void(const WalkedArchive&)>& take) {
  return Walk(archives, options, take).run();
}

}  // namespace mdm::ingest
