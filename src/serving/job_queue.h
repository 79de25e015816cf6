// The queue of jobs and the workers that make their pictures: first come, first served, with bounds on everything.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mdm/pipeline.h"
#include "serving/job.h"

namespace mdm::serving {

struct QueueLimits {
  size_t queued = 8;                         // jobs that wait; more are refused
  size_t per_client = 2;                     // jobs of one client that wait or run
  int64_t batch = 4;                         // pictures that are denoised together
  double job_seconds = 3600;                 // a job that runs for longer fails
  size_t results_bytes = size_t{256} << 20;  // of ended jobs; the oldest are forgotten first
  size_t results = 1000;                     // ended jobs that are remembered
};

// Why a job is not taken.
enum class Refusal { kQueueFull, kTooManyOfClient, kStopping };

// What makes pictures for one worker; called by that worker's thread alone. May throw anything.
struct PictureMaker {
  virtual ~PictureMaker() = default;
  // Pipeline::generate() of the model of that name. `sample.batch_size` is set by the queue.
  virtual void make(const std::string& model, const std::vector<PictureRequest>& requests, const SampleConfig& sample,
                    const GenerationCallbacks& callbacks) = 0;
  // A finished picture as a file, its settings inside.
  virtual std::string encode(const std::string& model, const Picture& picture, const SampleConfig& sample) = 0;
  // Levels of the model.
  virtual size_t levels(const std::string& model) = 0;
};

// Told of what the queue does, for the server's figures; called with the queue unlocked.
struct QueueWatcher {
  virtual ~QueueWatcher() = default;
  virtual void on_end(const Job& /*job*/) {}                      // done, failed or cancelled
  virtual void on_batch(size_t /*jobs*/, size_t /*pictures*/) {}  // begins
  virtual void on_step(size_t /*pictures*/) {}
};

class JobQueue {
 public:
  // One worker for each maker.
  JobQueue(std::vector<std::shared_ptr<PictureMaker>> makers, const QueueLimits& limits,
           std::shared_ptr<QueueWatcher> watcher = nullptr);
  ~JobQueue();  // stop()

  struct Submission {
    std::shared_ptr<Job> job;  // null when refused
    Refusal refusal = Refusal::kStopping;
  };
  Submission submit(JobOrder order, const std::string& client);
  // Null when there is none, or it is forgotten.
  std::shared_ptr<Job> find(const std::string& id) const;
  // A waiting job is ended at once; a running one's pictures are no longer made after the step that is being made.
  void cancel(const std::shared_ptr<Job>& job);

  struct Counts {
    size_t queued = 0, running = 0, remembered = 0, results_bytes = 0;
  };
  Counts counts() const;
  const QueueLimits& limits() const { return limits_; }

  // Refuses new jobs, cancels all others, and returns when the steps that are being made have ended.
  void stop();

 private:
  struct Batch;
  void work(PictureMaker& maker);
  std::vector<std::shared_ptr<Job>> take_batch();
  void run(PictureMaker& maker, const std::vector<std::shared_ptr<Job>>& jobs);
  void make(PictureMaker& maker, const std::shared_ptr<Batch>& batch);
  void end(const std::shared_ptr<Job>& job);
  void fail(const std::vector<std::shared_ptr<Job>>& jobs, const char* code, const char* message);
  void tell_positions();

  const QueueLimits limits_;
  const std::shared_ptr<QueueWatcher> watcher_;
  std::vector<std::shared_ptr<PictureMaker>> makers_;
  std::mutex positions_mutex_;  // taken before mutex_
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::deque<std::shared_ptr<Job>> waiting_;
  std::list<std::shared_ptr<Job>> running_;
  struct Remembered {
    std::shared_ptr<Job> job;
    size_t bytes = 0;
  };
  std::list<Remembered> ended_;  // oldest first
  size_t ended_bytes_ = 0;
  std::map<std::string, std::shared_ptr<Job>> by_id_;
  std::vector<std::shared_ptr<Batch>> batches_;  // that run
  std::vector<std::thread> workers_;
};

// Whether two orders can be denoised in one batch: the same model and settings, prompts and seeds aside.
bool same_batch(const JobOrder& a, const JobOrder& b);

}  // namespace mdm::serving
