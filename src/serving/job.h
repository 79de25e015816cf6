// A job: pictures that a client wants, how far they are, and who is told of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "mdm/pipeline.h"
#include "serving/denoising_record.h"

namespace mdm::serving {

// What is to be made. `sample` has all settings, the seed drawn already; picture i has the seed `sample.seed` + i.
struct JobOrder {
  std::string model;
  std::string prompt, negative_prompt;
  SampleConfig sample;
  bool look_inside = false;  // keep the denoising path, attention and times of the first picture
  bool preview = true;       // keep a small picture of each step

  size_t pictures() const { return static_cast<size_t>(sample.num_samples); }
};

enum class JobState { kQueued, kRunning, kDone, kFailed, kCancelled };
const char* state_name(JobState state);
inline bool is_final(JobState state) { return state != JobState::kQueued && state != JobState::kRunning; }

using Bytes = std::shared_ptr<const std::string>;

struct JobPicture {
  uint64_t seed = 0;
  int width = 0, height = 0;
  Bytes png;
  std::vector<Bytes> levels;  // of a nested model: the PNGs of all levels, highest first
};

// A job as it stands at one moment.
struct JobView {
  JobState state = JobState::kQueued;
  size_t position = 0;  // jobs before it, while it waits
  int64_t step = 0, steps = 0;
  double seconds = 0;                  // that it has run, or ran
  std::optional<double> seconds_left;  // while it runs, from the second step on
  double waited = 0;                   // seconds in the queue
  size_t batched_with = 0;             // other jobs that are denoised in the same batch
  std::string error_code, error_message;
  std::vector<JobPicture> pictures;  // of a finished job
};

struct JobPreview {
  int64_t step = 0;
  std::vector<Bytes> pictures;  // PNGs of x_0, one per picture
};

// Thread-safe. The queue changes it, everybody may look.
class Job {
 public:
  Job(std::string id, JobOrder order, std::string client);

  const std::string& id() const { return id_; }
  const JobOrder& order() const { return order_; }
  const std::string& client() const { return client_; }
  JobView view() const;
  // Null unless order().look_inside.
  const std::shared_ptr<DenoisingRecord>& record() const { return record_; }
  // Bytes of its results.
  size_t bytes() const;

  // For the queue. Changes of a job that has ended are left out; the functions return whether something changed. Of an
  // end listeners learn by tell(), once the queue has taken note of it.
  bool set_position(size_t position);
  bool start(int64_t steps, size_t batched_with);
  bool set_progress(int64_t step, std::optional<JobPreview> preview);
  bool finish(std::vector<JobPicture> pictures);
  bool fail(const std::string& code, const std::string& message);
  bool cancel(const std::string& reason = "");
  void tell();
  bool ended() const;

  // What has happened after event number `seen`, in order: all changes of state, but only the newest progress and the
  // newest preview. A new reader gives 0 and gets the present state.
  struct Event {
    enum class Kind { kState, kProgress, kPreview } kind = Kind::kState;
    uint64_t number = 0;
    JobView view;
    JobPreview preview;
  };
  std::vector<Event> events_after(uint64_t seen) const;
  // `call` is called after each change, from the thread that makes it; returns what forget() takes. Of a job that has
  // ended nothing more is heard: then 0.
  uint64_t listen(std::function<void()> call);
  void forget(uint64_t listener);

 private:
  using Clock = std::chrono::steady_clock;
  template <typename Change>
  bool change(Event::Kind kind, const Change& make);
  JobView timed(JobView view) const;

  const std::string id_;
  const JobOrder order_;
  const std::string client_;
  const std::shared_ptr<DenoisingRecord> record_;
  const Clock::time_point created_;
  mutable std::mutex mutex_;
  JobView view_;
  Clock::time_point started_, ended_;
  std::vector<Event> states_;  // the newest of each state, in order
  uint64_t number_ = 0, progress_number_ = 0, preview_number_ = 0;
  JobPreview preview_;
  std::map<uint64_t, std::shared_ptr<std::function<void()>>> listeners_;
  uint64_t next_listener_ = 1;
};

}  // namespace mdm::serving
