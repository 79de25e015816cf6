// The queue of jobs.
#include "serving/job_queue.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/secret.h"
#include "serving/batch_progress.h"
#include "serving/order.h"

namespace mdm::serving {
namespace {

constexpr size_t kIdBytes = 16;  // ids are how a client is known to be the job's own: they can't be guessed

}  // namespace

bool same_batch(const JobOrder& a, const JobOrder& b) {
  // Whatever setting there will be: those that differ between pictures of one batch are named.
  const auto shared_settings = [](const JobOrder& order) {
    Json values = values_of(order.sample);
    values.erase("seed");
    values.erase("num_samples");
    return values;
  };
  return a.model == b.model && !a.look_inside && !b.look_inside && shared_settings(a) == shared_settings(b);
}

// A batch that is being denoised.
struct JobQueue::Batch {
  std::vector<std::shared_ptr<Job>> jobs;
  std::atomic<bool> cancel{false};
};

JobQueue::JobQueue(std::vector<std::shared_ptr<PictureMaker>> makers, const QueueLimits& limits,
                   std::shared_ptr<QueueWatcher> watcher)
    : limits_(limits),
      watcher_(watcher ? std::move(watcher) : std::make_shared<QueueWatcher>()),
      makers_(std::move(makers)) {
  for (const auto& maker : makers_) workers_.emplace_back([this, one = maker.get()] { work(*one); });
}

JobQueue::~JobQueue() { stop(); }

JobQueue::Submission JobQueue::submit(JobOrder order, const std::string& client) {
  auto job = std::make_shared<Job>(random_hex(kIdBytes), std::move(order), client);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return {nullptr, Refusal::kStopping};
    const auto of_client = [&](const std::shared_ptr<Job>& other) {
      return other->client() == client && !other->ended();
    };
    const auto own = std::count_if(waiting_.begin(), waiting_.end(), of_client) +
                     std::count_if(running_.begin(), running_.end(), of_client);
    if (static_cast<size_t>(own) >= limits_.per_client) return {nullptr, Refusal::kTooManyOfClient};
    if (waiting_.size() >= limits_.queued) return {nullptr, Refusal::kQueueFull};
    job->set_position(waiting_.size());
    waiting_.push_back(job);
    by_id_[job->id()] = job;
  }
  wake_.notify_one();
  return {job, {}};
}

std::shared_ptr<Job> JobQueue::find(const std::string& id) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

void JobQueue::cancel(const std::shared_ptr<Job>& job) {
  if (!job->cancel()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), job), waiting_.end());
    for (const auto& batch : batches_) {
      const auto& jobs = batch->jobs;
      if (std::all_of(jobs.begin(), jobs.end(), [](const auto& one) { return one->ended(); })) batch->cancel = true;
    }
  }
  end(job);
  tell_positions();
}

JobQueue::Counts JobQueue::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto running =
      std::count_if(running_.begin(), running_.end(), [](const std::shared_ptr<Job>& job) { return !job->ended(); });
  return {waiting_.size(), static_cast<size_t>(running), ended_.size(), ended_bytes_};
}

void JobQueue::stop() {
  std::vector<std::shared_ptr<Job>> dropped;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    dropped.assign(waiting_.begin(), waiting_.end());
    waiting_.clear();
    for (const auto& batch : batches_) batch->cancel = true;
  }
  wake_.notify_all();
  for (const auto& job : dropped) {
    if (job->cancel("the server is stopping")) end(job);
  }
  for (std::thread& worker : workers_) {
    if (worker.joinable()) worker.join();
  }
}

void JobQueue::work(PictureMaker& maker) {
  while (true) {
    const auto jobs = take_batch();
    if (jobs.empty()) return;
    tell_positions();
    run(maker, jobs);
  }
}

// Waits for the next job, and takes those along that can be denoised with it. Empty: the queue stops.
std::vector<std::shared_ptr<Job>> JobQueue::take_batch() {
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
  if (stopping_) return {};
  std::vector<std::shared_ptr<Job>> jobs = {waiting_.front()};
  waiting_.pop_front();
  const JobOrder& first = jobs.front()->order();
  size_t pictures = first.pictures();
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    const JobOrder& order = (*at)->order();
    if (pictures + order.pictures() <= static_cast<size_t>(limits_.batch) && same_batch(first, order)) {
      pictures += order.pictures();
      jobs.push_back(*at);
      at = waiting_.erase(at);
    } else {
      ++at;
    }
  }
  running_.insert(running_.end(), jobs.begin(), jobs.end());
  return jobs;
}

void JobQueue::tell_positions() {
  const std::lock_guard<std::mutex> one_at_a_time(positions_mutex_);
  std::vector<std::shared_ptr<Job>> waiting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting.assign(waiting_.begin(), waiting_.end());
  }
  for (size_t i = 0; i < waiting.size(); ++i) waiting[i]->set_position(i);
}

// Takes note of an end, then tells it: whoever hears of it finds all figures right. The results are kept until newer
// ones need the room.
void JobQueue::end(const std::shared_ptr<Job>& job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t bytes = job->bytes();
    ended_.push_back({job, bytes});
    ended_bytes_ += bytes;
    while (ended_.size() > 1 && (ended_bytes_ > limits_.results_bytes || ended_.size() > limits_.results)) {
      ended_bytes_ -= ended_.front().bytes;
      by_id_.erase(ended_.front().job->id());
      ended_.pop_front();
    }
  }
  watcher_->on_end(*job);
  job->tell();
}

void JobQueue::fail(const std::vector<std::shared_ptr<Job>>& jobs, const char* code, const char* message) {
  for (const auto& job : jobs) {
    if (job->fail(code, message)) end(job);
  }
}

void JobQueue::run(PictureMaker& maker, const std::vector<std::shared_ptr<Job>>& jobs) {
  const auto batch = std::make_shared<Batch>();
  batch->jobs = jobs;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    batches_.push_back(batch);
    const bool nobody_waits = std::all_of(jobs.begin(), jobs.end(), [](const auto& job) { return job->ended(); });
    if (stopping_ || nobody_waits) batch->cancel = true;
  }
  constexpr const char* kMemory = "there was not enough memory; ask for fewer pictures";
  constexpr const char* kInternal = "the pictures could not be made; the server's log says more";
  try {
    if (!batch->cancel) make(maker, batch);
  } catch (const ConfigError& error) {
    log_error("a job failed: ", printable(error.what(), 1000));
    fail(jobs, "unusable", "the model can't be used with these settings; the server's log says more");
  } catch (const std::bad_alloc&) {
    log_error("a job failed: out of memory");
    fail(jobs, "out_of_memory", kMemory);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    log_error("a job failed: ", printable(text, 1000));
    const bool memory = text.find("out of memory") != text.npos || text.find("can't allocate memory") != text.npos;
    fail(jobs, memory ? "out_of_memory" : "internal", memory ? kMemory : kInternal);
  } catch (...) {
    log_error("a job failed for an unknown reason");
    fail(jobs, "internal", kInternal);
  }
  // Those that have no pictures by now, and did not fail.
  for (const auto& job : jobs) {
    if (job->cancel("the server is stopping")) end(job);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  batches_.erase(std::find(batches_.begin(), batches_.end(), batch));
  for (const auto& job : jobs) running_.remove(job);
}

void JobQueue::make(PictureMaker& maker, const std::shared_ptr<Batch>& batch) {
  const std::string& model = batch->jobs.front()->order().model;
  BatchProgress progress(batch->jobs, limits_.batch, maker.levels(model));
  watcher_->on_batch(batch->jobs.size(), progress.requests().size());
  progress.begin();
  GenerationCallbacks callbacks;
  callbacks.cancel = &batch->cancel;
  callbacks.look_inside = batch->jobs.front()->order().look_inside;
  callbacks.on_step = [&](const GenerationStep& step) {
    progress.on_step(step);
    watcher_->on_step(step.count);
    if (progress.seconds() > limits_.job_seconds) {
      fail(batch->jobs, "too_slow", "the job took longer than the server allows");
      batch->cancel = true;
    }
  };
  callbacks.on_pictures = [&](std::vector<Picture> pictures) {
    for (const Picture& picture : pictures) {
      progress.add(picture, [&](const Picture& one) { return maker.encode(model, one, progress.sample()); });
    }
  };
  maker.make(model, progress.requests(), progress.sample(), callbacks);
  progress.finish([this](const std::shared_ptr<Job>& job) { end(job); });
}

}  // namespace mdm::serving
