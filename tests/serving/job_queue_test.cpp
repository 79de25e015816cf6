// The queue with a maker of its own in place of a model: order, bounds, batches, cancelling, failures, memory.
#include "serving/job_queue.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "mdm/core/error.h"
#include "serving/order.h"

namespace mdm::serving {
namespace {

using std::chrono::milliseconds;

class FakeStep final : public GenerationStep {
 public:
  Image predicted(size_t, size_t) const override { return Image(4, 4, 3, 9); }
  Image noisy(size_t, size_t) const override { return Image(4, 4, 3, 7); }
  Image predicted_by(GuidanceHalf, size_t, size_t) const override { return {}; }
  std::vector<AttentionMap> attention(size_t) const override { return {}; }
  std::vector<BlockTime> block_times() const override { return {}; }
};

// Makes grey pictures, a step each time it is let.
class FakeMaker final : public PictureMaker {
 public:
  void make(const std::string& model, const std::vector<PictureRequest>& requests, const SampleConfig& sample,
            const GenerationCallbacks& callbacks) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const PictureRequest& request : requests) prompts_.push_back(request.prompt);
      batches_.push_back(requests.size());
      models_.push_back(model);
    }
    if (fault) fault(requests);
    const auto batch = static_cast<size_t>(sample.batch_size);
    for (size_t first = 0; first < requests.size(); first += batch) {
      const size_t count = std::min(batch, requests.size() - first);
      for (int64_t step = 1; step <= sample.num_inference_steps; ++step) {
        if (callbacks.cancel->load()) return;
        wait_for_leave();
        FakeStep view;
        view.step = step;
        view.steps = sample.num_inference_steps;
        view.first = first;
        view.count = count;
        callbacks.on_step(view);
      }
      std::vector<Picture> pictures;
      for (size_t i = first; i < first + count; ++i) {
        Picture picture;
        picture.request = requests[i];
        picture.index = i;
        picture.image = Image(4, 4, 3, 9);
        pictures.push_back(std::move(picture));
      }
      callbacks.on_pictures(std::move(pictures));
    }
  }
  std::string encode(const std::string&, const Picture& picture, const SampleConfig&) override {
    return "png of " + picture.request.prompt + " " + std::to_string(picture.request.seed) + std::string(padding, '.');
  }
  size_t levels(const std::string&) override { return 1; }

  void hold() { leave(-1); }
  // Lets `steps` more steps be made; held afterwards.
  void leave(int steps) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_ = true;
    left_ = std::max(0, steps);
    wake_.notify_all();
  }
  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_ = false;
    wake_.notify_all();
  }
  std::vector<std::string> prompts() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return prompts_;
  }
  std::vector<size_t> batches() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return batches_;
  }

  std::function<void(const std::vector<PictureRequest>&)> fault;
  size_t padding = 0;

 private:
  void wait_for_leave() {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [this] { return !held_ || left_ > 0; });
    if (held_) --left_;
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  bool held_ = false;
  int left_ = 0;
  std::vector<std::string> prompts_, models_;
  std::vector<size_t> batches_;
};

struct EndCounter final : QueueWatcher {
  void on_end(const Job&) override { ++ended; }
  std::atomic<int> ended{0};
};

class JobQueueTest : public ::testing::Test {
 protected:
  void start(QueueLimits limits = wide()) {
    auto maker = std::make_shared<FakeMaker>();
    maker_ = maker.get();
    std::vector<std::shared_ptr<PictureMaker>> makers;
    makers.push_back(std::move(maker));
    queue_ = std::make_unique<JobQueue>(std::move(makers), limits, watcher_);
  }
  static QueueLimits wide() {
    QueueLimits limits;
    limits.queued = limits.per_client = 100;
    return limits;
  }
  static JobOrder order(const std::string& prompt, int64_t pictures = 1, int64_t steps = 2) {
    JobOrder order;
    order.model = "m";
    order.prompt = prompt;
    order.sample.num_samples = pictures;
    order.sample.num_inference_steps = steps;
    order.sample.seed = 5;
    return order;
  }
  // Of whatever makes another picture.
  static std::vector<std::function<void(JobOrder&)>> changes() {
    return {[](JobOrder& o) { o.model = "n"; },
            [](JobOrder& o) { o.look_inside = true; },
            [](JobOrder& o) { o.sample.guidance_scale = 1; },
            [](JobOrder& o) { o.sample.guidance_rescale = 0.5; },
            [](JobOrder& o) { o.sample.guidance_start = 0.1; },
            [](JobOrder& o) { o.sample.guidance_end = 0.9; },
            [](JobOrder& o) { o.sample.num_inference_steps = 3; },
            [](JobOrder& o) { o.sample.sampler = SamplerKind::kEuler; },
            [](JobOrder& o) { o.sample.ddim_eta = 0.5; },
            [](JobOrder& o) { o.sample.timestep_spacing = TimestepSpacing::kLeading; },
            [](JobOrder& o) { o.sample.threshold = ThresholdType::kNone; },
            [](JobOrder& o) { o.sample.sample_image_size = 64; }};
  }
  std::shared_ptr<Job> submit(const std::string& prompt, int64_t pictures = 1, int64_t steps = 2) {
    return queue_->submit(order(prompt, pictures, steps), "client").job;
  }
  static bool wait_for(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(5));
    return condition();
  }
  static JobState ended(const std::shared_ptr<Job>& job) {
    EXPECT_TRUE(wait_for([&] { return job->ended(); }));
    return job->view().state;
  }

  std::shared_ptr<EndCounter> watcher_ = std::make_shared<EndCounter>();
  std::unique_ptr<JobQueue> queue_;
  FakeMaker* maker_ = nullptr;
};

TEST_F(JobQueueTest, MakesPicturesWithConsecutiveSeeds) {
  start();
  const auto job = submit("a", 3);
  ASSERT_EQ(ended(job), JobState::kDone);
  const JobView view = job->view();
  ASSERT_EQ(view.pictures.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(view.pictures[i].seed, 5 + i);
    EXPECT_EQ(*view.pictures[i].png, "png of a " + std::to_string(5 + i));
  }
  EXPECT_EQ(view.step, view.steps);
  EXPECT_EQ(queue_->find(job->id()), job);
}

TEST_F(JobQueueTest, FirstComeFirstServed) {
  start();
  maker_->hold();
  std::vector<std::shared_ptr<Job>> jobs;
  // Different numbers of steps are never denoised together.
  for (int i = 0; i < 5; ++i) jobs.push_back(submit(std::string(1, static_cast<char>('a' + i)), 1, 2 + i));
  ASSERT_TRUE(wait_for([&] { return jobs[0]->view().state == JobState::kRunning; }));
  EXPECT_EQ(jobs[1]->view().position, 0u);
  EXPECT_EQ(jobs[4]->view().position, 3u);
  maker_->release();
  for (const auto& job : jobs) EXPECT_EQ(ended(job), JobState::kDone);
  EXPECT_EQ(maker_->prompts(), (std::vector<std::string>{"a", "b", "c", "d", "e"}));
}

TEST_F(JobQueueTest, JobsOfEqualSettingsAreDenoisedTogether) {
  start();
  maker_->hold();
  const auto first = submit("first");
  ASSERT_TRUE(wait_for([&] { return maker_->batches().size() == 1; }));
  const auto a = submit("a"), other = submit("other", 1, 3), b = submit("b", 2), c = submit("c", 2);
  maker_->release();
  for (const auto& job : {first, a, other, b, c}) EXPECT_EQ(ended(job), JobState::kDone);
  // a and b fill three of four places, c needs two; `other` has other settings.
  EXPECT_EQ(maker_->batches(), (std::vector<size_t>{1, 3, 1, 2}));
  EXPECT_EQ(maker_->prompts(), (std::vector<std::string>{"first", "a", "b", "b", "other", "c", "c"}));
  EXPECT_EQ(a->view().batched_with, 1u);
  EXPECT_EQ(*b->view().pictures[1].png, "png of b 6");
  EXPECT_EQ(*a->view().pictures[0].png, "png of a 5");
}

TEST_F(JobQueueTest, SettingsThatChangeAPictureKeepJobsApart) {
  const JobOrder base = order("x");
  EXPECT_TRUE(same_batch(base, order("y", 2)));
  const auto changes = JobQueueTest::changes();
  for (size_t i = 0; i < changes.size(); ++i) {
    JobOrder other = order("y");
    changes[i](other);
    EXPECT_FALSE(same_batch(base, other)) << i;
  }
}

// Every setting there is keeps jobs apart, also one that is added later.
TEST_F(JobQueueTest, NoSettingIsForgotten) {
  const JobOrder base = order("x");
  const Json values = values_of(base.sample);
  for (const auto& [name, value] : values.items()) {
    if (name == "seed" || name == "num_samples") continue;
    bool split = false;
    for (const auto& change : changes()) {
      JobOrder other = base;
      change(other);
      split = split || (values_of(other.sample)[name] != value && !same_batch(base, other));
    }
    EXPECT_TRUE(split) << name << " can differ within a batch, or no change of it is tried";
  }
}

// Who hears of the end of its job may order the next one, and finds it counted.
TEST_F(JobQueueTest, AnEndIsCountedBeforeItIsTold) {
  QueueLimits limits;
  limits.per_client = 1;
  start(limits);
  for (int i = 0; i < 200; ++i) {
    const auto job = submit("a", 1, 1);
    ASSERT_TRUE(job) << i;
    std::atomic<bool> told{false}, right{false};
    const auto look = [&] {
      if (!job->ended() || told) return;
      right = watcher_->ended == i + 1 && queue_->counts().running == 0;
      told = true;
    };
    if (job->listen(look) == 0) {
      ASSERT_TRUE(wait_for([&] { return watcher_->ended == i + 1; }));
      continue;
    }
    ASSERT_TRUE(wait_for([&] { return told.load(); }));
    EXPECT_TRUE(right);
  }
}

TEST_F(JobQueueTest, AnEndedJobKeepsNoListener) {
  start();
  auto job = submit("a");
  ASSERT_EQ(ended(job), JobState::kDone);
  auto kept = std::make_shared<int>(0);
  EXPECT_EQ(job->listen([kept] {}), 0u);
  EXPECT_EQ(kept.use_count(), 1);
}

TEST_F(JobQueueTest, HasBounds) {
  QueueLimits limits;
  limits.queued = 3;
  limits.per_client = 2;
  start(limits);
  maker_->hold();
  const auto running = queue_->submit(order("r", 1, 9), "a").job;
  ASSERT_TRUE(wait_for([&] { return queue_->counts().running == 1; }));
  ASSERT_TRUE(queue_->submit(order("1", 1, 8), "a").job);
  const auto third = queue_->submit(order("2"), "a");
  EXPECT_FALSE(third.job);
  EXPECT_EQ(third.refusal, Refusal::kTooManyOfClient);
  ASSERT_TRUE(queue_->submit(order("3", 1, 7), "b").job);
  ASSERT_TRUE(queue_->submit(order("4", 1, 6), "c").job);
  const auto full = queue_->submit(order("5"), "d");
  EXPECT_FALSE(full.job);
  EXPECT_EQ(full.refusal, Refusal::kQueueFull);
  maker_->release();
  EXPECT_TRUE(wait_for([&] { return watcher_->ended == 4; }));
  EXPECT_TRUE(queue_->submit(order("6"), "a").job);
}

TEST_F(JobQueueTest, CancellingFreesTheWorkerWithinAStep) {
  start();
  maker_->hold();
  const auto job = submit("long", 1, 1000), next = submit("next", 1, 1);
  maker_->leave(3);
  ASSERT_TRUE(wait_for([&] { return job->view().step == 3; }));
  queue_->cancel(job);
  EXPECT_EQ(job->view().state, JobState::kCancelled);
  maker_->leave(1);  // the step that was being made
  maker_->leave(1);  // of the next job
  EXPECT_TRUE(wait_for([&] {
    maker_->leave(1);
    return next->ended();
  }));
  EXPECT_EQ(next->view().state, JobState::kDone);
  EXPECT_LE(job->view().step, 4);
  EXPECT_TRUE(job->view().pictures.empty());
}

TEST_F(JobQueueTest, CancellingAWaitingJobEndsItAtOnce) {
  start();
  maker_->hold();
  const auto first = submit("first"), second = submit("second", 1, 3), third = submit("third", 1, 4);
  ASSERT_TRUE(wait_for([&] { return queue_->counts().running == 1; }));
  queue_->cancel(second);
  EXPECT_EQ(second->view().state, JobState::kCancelled);
  EXPECT_EQ(third->view().position, 0u);
  queue_->cancel(second);  // again: nothing
  maker_->release();
  EXPECT_EQ(ended(first), JobState::kDone);
  EXPECT_EQ(ended(third), JobState::kDone);
  EXPECT_EQ(maker_->prompts(), (std::vector<std::string>{"first", "third"}));
}

TEST_F(JobQueueTest, CancellingOneOfABatchLeavesTheOthers) {
  start();
  maker_->hold();
  const auto first = submit("first", 1, 3);
  ASSERT_TRUE(wait_for([&] { return queue_->counts().running == 1; }));
  const auto a = submit("a"), b = submit("b");
  maker_->leave(4);  // all of the first, one of the batch
  ASSERT_TRUE(wait_for([&] { return a->view().step == 1; }));
  queue_->cancel(a);
  maker_->release();
  EXPECT_EQ(ended(b), JobState::kDone);
  EXPECT_EQ(a->view().state, JobState::kCancelled);
  EXPECT_EQ(ended(first), JobState::kDone);
  EXPECT_TRUE(wait_for([&] { return watcher_->ended == 3; }));
}

TEST_F(JobQueueTest, AFailureIsTheJobsOwn) {
  start();
  maker_->fault = [](const std::vector<PictureRequest>& requests) {
    const std::string& prompt = requests.front().prompt;
    if (prompt == "config") fail<ConfigError>("text_model: /secret/folder is not there");
    if (prompt == "memory") throw std::bad_alloc();
    if (prompt == "torch memory") throw std::runtime_error("DefaultCPUAllocator: can't allocate memory");
    if (prompt == "number") throw 7;
    if (prompt == "error") fail("/secret/path");
  };
  const std::vector<std::pair<std::string, std::string>> cases = {{"config", "unusable"},
                                                                  {"memory", "out_of_memory"},
                                                                  {"torch memory", "out_of_memory"},
                                                                  {"number", "internal"},
                                                                  {"error", "internal"}};
  for (const auto& [prompt, code] : cases) {
    const auto job = submit(prompt);
    EXPECT_EQ(ended(job), JobState::kFailed) << prompt;
    EXPECT_EQ(job->view().error_code, code);
    EXPECT_EQ(job->view().error_message.find("secret"), std::string::npos);
    EXPECT_EQ(ended(submit("fine")), JobState::kDone);  // the worker lives
  }
}

TEST_F(JobQueueTest, AJobThatTakesTooLongFails) {
  QueueLimits limits = wide();
  limits.job_seconds = 0.2;
  start(limits);
  maker_->hold();
  const auto job = submit("slow", 1, 1000);
  EXPECT_TRUE(wait_for([&] {
    maker_->leave(1);
    return job->ended();
  }));
  EXPECT_EQ(job->view().error_code, "too_slow");
  maker_->release();
  EXPECT_EQ(ended(submit("fine")), JobState::kDone);
}

TEST_F(JobQueueTest, OldResultsMakeRoom) {
  QueueLimits limits = wide();
  limits.results_bytes = 10000;
  start(limits);
  maker_->padding = 3000;
  std::vector<std::shared_ptr<Job>> jobs;
  for (int i = 0; i < 6; ++i) {
    jobs.push_back(submit("p" + std::to_string(i), 1, 2 + i));
    EXPECT_EQ(ended(jobs.back()), JobState::kDone);
  }
  ASSERT_TRUE(wait_for([&] { return watcher_->ended == 6; }));
  EXPECT_LE(queue_->counts().results_bytes, 10000u);
  EXPECT_FALSE(queue_->find(jobs[0]->id()));
  EXPECT_TRUE(queue_->find(jobs[5]->id()));
  EXPECT_EQ(jobs[0]->view().pictures.size(), 1u);  // who has it keeps it
}

TEST_F(JobQueueTest, StoppingTellsEverybody) {
  start();
  maker_->hold();
  const auto running = submit("running", 1, 1000), waiting = submit("waiting");
  ASSERT_TRUE(wait_for([&] { return queue_->counts().running == 1; }));
  std::thread lets([&] {
    std::this_thread::sleep_for(milliseconds(50));
    maker_->leave(1);  // the step that is being made ends
  });
  queue_->stop();
  lets.join();
  EXPECT_EQ(running->view().state, JobState::kCancelled);
  EXPECT_EQ(running->view().error_message, "the server is stopping");
  EXPECT_EQ(waiting->view().state, JobState::kCancelled);
  EXPECT_EQ(queue_->submit(order("late"), "client").refusal, Refusal::kStopping);
}

TEST_F(JobQueueTest, EventsTellEachStateAndTheNewestProgress) {
  start();
  maker_->hold();
  const auto job = submit("a", 1, 5);
  std::atomic<int> calls{0};
  job->listen([&] { ++calls; });
  auto events = job->events_after(0);
  ASSERT_EQ(events.size(), 1u);
  const uint64_t seen = events.front().number;
  maker_->leave(3);
  ASSERT_TRUE(wait_for([&] { return job->view().step == 3; }));
  events = job->events_after(seen);
  size_t progress = 0, previews = 0;
  for (const auto& event : events) {
    progress += event.kind == Job::Event::Kind::kProgress ? 1 : 0;
    previews += event.kind == Job::Event::Kind::kPreview ? 1 : 0;
    EXPECT_GT(event.number, seen);
  }
  EXPECT_EQ(progress, 1u);  // three steps were made: only the newest counts
  EXPECT_EQ(previews, 1u);
  maker_->release();
  EXPECT_EQ(ended(job), JobState::kDone);
  events = job->events_after(seen);
  EXPECT_EQ(events.back().view.state, JobState::kDone);
  EXPECT_TRUE(job->events_after(events.back().number).empty());
  // A number from another server's life: the present state is told again.
  ASSERT_EQ(job->events_after(events.back().number + 1000).size(), 1u);
  EXPECT_GT(calls, 5);
}

// Many clients at once: every job ends, none is counted twice, and two workers share the work.
TEST_F(JobQueueTest, NoneIsLostAmongMany) {
  QueueLimits limits = wide();
  limits.queued = limits.per_client = 1000;
  std::vector<std::shared_ptr<PictureMaker>> makers;
  makers.push_back(std::make_shared<FakeMaker>());
  makers.push_back(std::make_shared<FakeMaker>());
  queue_ = std::make_unique<JobQueue>(std::move(makers), limits, watcher_);
  std::mutex mutex;
  std::vector<std::shared_ptr<Job>> jobs;
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < 40; ++i) {
        const auto job = queue_->submit(order(std::to_string(c), 1 + i % 3, 1 + i % 4), std::to_string(c)).job;
        if (i % 5 == 0) queue_->cancel(job);
        const std::lock_guard<std::mutex> lock(mutex);
        jobs.push_back(job);
      }
    });
  }
  for (auto& client : clients) client.join();
  ASSERT_TRUE(wait_for([&] { return watcher_->ended == 320; }));
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(watcher_->ended, 320);
  for (const auto& job : jobs) {
    const JobState state = job->view().state;
    EXPECT_TRUE(state == JobState::kDone || state == JobState::kCancelled);
    if (state == JobState::kDone) {
      EXPECT_EQ(job->view().pictures.size(), static_cast<size_t>(job->order().sample.num_samples));
    }
  }
  EXPECT_EQ(queue_->counts().running, 0u);
}

}  // namespace
}  // namespace mdm::serving
