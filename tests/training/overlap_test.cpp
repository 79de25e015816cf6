// Gradients travel while the backward pass still runs: shown with a group as slow as a slow network.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "training/support.h"

namespace mdm::training_test {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// One process, and a link that needs a time for every byte, one sum after the other. Nothing computes meanwhile.
class SlowGroup : public ProcessGroup {
 public:
  double seconds_per_byte = 0;
  double sending = 0, waiting = 0;  // seconds in all: on the way, and of these not hidden
  uint64_t calls = 0, bytes = 0;

  std::unique_ptr<Pending> begin_sum(const at::Tensor& values, const std::string& /*what*/) override {
    ++calls;
    bytes += values.nbytes();
    const Seconds takes(static_cast<double>(values.nbytes()) * seconds_per_byte);
    sending += takes.count();
    free_at_ = std::max(free_at_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(takes);
    return std::make_unique<Arrival>(*this, free_at_);
  }
  void forget() { sending = waiting = 0; }

 private:
  struct Arrival : Pending {
    Arrival(SlowGroup& from, Clock::time_point when) : group(from), at(when) {}
    void wait() override {
      const auto start = Clock::now();
      std::this_thread::sleep_until(at);
      group.waiting += Seconds(Clock::now() - start).count();
    }
    SlowGroup& group;
    Clock::time_point at;
  };
  Clock::time_point free_at_;
};

// The share of the sending that a step has to wait for, when all of it takes half as long as the backward pass does.
double exposed_share(const char* bucket_mb) {
  constexpr int kWarmUp = 5, kSteps = 20;
  SlowGroup group;
  Config config = tiny_config(true, {{"use_double_loss", "true"}, {"bucket_mb", bucket_mb}});
  config.trainer.batch_size = 8;
  ToyRun run(config);
  run.parts.group = &group;
  const auto trainer = run.make_trainer();
  std::vector<double> backward;
  for (int step = 0; step < kWarmUp; ++step) backward.push_back(trainer->step().backward_seconds);
  const auto bytes = static_cast<double>(trainer->arena().flat_gradients().nbytes());
  group.seconds_per_byte = *std::min_element(backward.begin(), backward.end()) / 2 / bytes;
  group.forget();
  for (int step = 0; step < kSteps; ++step) trainer->step();
  return group.waiting / group.sending;
}

TEST(Overlap, HidesTheSendingBehindTheBackwardPass) {
  // What can't be hidden is the sending of the gradients that come last.
  EXPECT_LT(exposed_share("0.02"), 0.5);
  // The measure is one: a single bucket is complete only when the backward pass is over.
  EXPECT_GT(exposed_share("1000"), 0.8);
}

}  // namespace
}  // namespace mdm::training_test
