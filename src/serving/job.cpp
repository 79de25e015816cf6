// A job and its events.
#include "serving/job.h"

#include <algorithm>
#include <utility>

namespace mdm::serving {
namespace {

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

const char* state_name(JobState state) {
  switch (state) {
    case JobState::kQueued: return "queued";
    case JobState::kRunning: return "running";
    case JobState::kDone: return "done";
    case JobState::kFailed: return "failed";
    case JobState::kCancelled: return "cancelled";
  }
  return "";
}

Job::Job(std::string id, JobOrder order, std::string client)
    : id_(std::move(id)),
      order_(std::move(order)),
      client_(std::move(client)),
      record_(order_.look_inside ? std::make_shared<DenoisingRecord>() : nullptr),
      created_(Clock::now()) {
  states_.push_back({Event::Kind::kState, ++number_, view_, {}});
}

JobView Job::timed(JobView view) const {
  const Clock::time_point now = Clock::now();
  const bool has_run = started_ != Clock::time_point();
  const bool ended = is_final(view.state);
  view.waited = seconds_between(created_, has_run ? started_ : (ended ? ended_ : now));
  view.seconds = has_run ? seconds_between(started_, ended ? ended_ : now) : 0;
  view.seconds_left.reset();
  if (view.state == JobState::kRunning && view.step > 0) {
    view.seconds_left = view.seconds / static_cast<double>(view.step) * static_cast<double>(view.steps - view.step);
  }
  return view;
}

JobView Job::view() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return timed(view_);
}

bool Job::ended() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return is_final(view_.state);
}

size_t Job::bytes() const {
  size_t bytes = record_ ? record_->bytes() : 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const JobPicture& picture : view_.pictures) {
    bytes += picture.png->size();
    for (const Bytes& level : picture.levels) bytes += level->size();
  }
  for (const Bytes& picture : preview_.pictures) bytes += picture->size();
  return bytes;
}

template <typename Change>
bool Job::change(Event::Kind kind, const Change& make) {
  bool is_end = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_final(view_.state) || !make()) return false;
    ++number_;
    is_end = is_final(view_.state);
    if (is_end) ended_ = Clock::now();
    if (kind == Event::Kind::kState) {
      if (states_.back().view.state == view_.state) states_.pop_back();  // another position in the queue
      states_.push_back({Event::Kind::kState, number_, view_, {}});
    } else {
      progress_number_ = number_;
    }
  }
  if (!is_end) tell();
  return true;
}

void Job::tell() {
  std::vector<std::shared_ptr<std::function<void()>>> calls;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [listener, call] : listeners_) calls.push_back(call);
    if (is_final(view_.state)) listeners_.clear();  // nothing comes after that
  }
  for (const auto& call : calls) (*call)();
}

bool Job::set_position(size_t position) {
  return change(Event::Kind::kState, [&] {
    if (view_.state != JobState::kQueued || view_.position == position) return false;
    view_.position = position;
    return true;
  });
}

bool Job::start(int64_t steps, size_t batched_with) {
  return change(Event::Kind::kState, [&] {
    view_.state = JobState::kRunning;
    view_.position = 0;
    view_.steps = steps;
    view_.batched_with = batched_with;
    started_ = Clock::now();
    return true;
  });
}

bool Job::set_progress(int64_t step, std::optional<JobPreview> preview) {
  return change(Event::Kind::kProgress, [&] {
    view_.step = step;
    if (preview) {
      preview_ = std::move(*preview);
      preview_number_ = ++number_;
    }
    return true;
  });
}

bool Job::finish(std::vector<JobPicture> pictures) {
  return change(Event::Kind::kState, [&] {
    view_.state = JobState::kDone;
    view_.step = view_.steps;
    view_.pictures = std::move(pictures);
    preview_ = {};
    return true;
  });
}

bool Job::fail(const std::string& code, const std::string& message) {
  return change(Event::Kind::kState, [&] {
    view_.state = JobState::kFailed;
    view_.error_code = code;
    view_.error_message = message;
    return true;
  });
}

bool Job::cancel(const std::string& reason) {
  return change(Event::Kind::kState, [&] {
    view_.state = JobState::kCancelled;
    if (!reason.empty()) {
      view_.error_code = "cancelled";
      view_.error_message = reason;
    }
    return true;
  });
}

std::vector<Job::Event> Job::events_after(uint64_t seen) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Event> events;
  // A new reader needs no past, and one that has seen more than there is comes from another server.
  if (seen > number_) seen = 0;
  if (seen == 0) {
    events.push_back(states_.back());
  } else {
    for (const Event& event : states_) {
      if (event.number > seen) events.push_back(event);
    }
  }
  const bool runs = view_.state == JobState::kRunning;
  if (runs && progress_number_ > seen) events.push_back({Event::Kind::kProgress, progress_number_, view_, {}});
  if (runs && preview_number_ > seen) events.push_back({Event::Kind::kPreview, preview_number_, view_, preview_});
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.number < b.number; });
  for (Event& event : events) event.view = timed(std::move(event.view));
  return events;
}

uint64_t Job::listen(std::function<void()> call) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (is_final(view_.state)) return 0;
  listeners_[next_listener_] = std::make_shared<std::function<void()>>(std::move(call));
  return next_listener_++;
}

void Job::forget(uint64_t listener) {
  const std::lock_guard<std::mutex> lock(mutex_);
  listeners_.erase(listener);
}

}  // namespace mdm::serving
