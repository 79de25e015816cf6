// Who is still there: each process shows a sign of life in the store every second, so that when a collective fails the
// message can say whose fault it is; and a process that ought to end but doesn't is ended by its app.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

namespace mdm {

class Liveness {
 public:
  struct Options {
    int64_t rank = 0, world_size = 1;
    std::vector<std::string> hosts;                        // by rank
    std::function<void(const std::string& why)> on_stuck;  // may be empty
    std::chrono::milliseconds collective_timeout{600000};
  };

  // `store` is used by a thread of its own.
  Liveness(c10::intrusive_ptr<c10d::Store> store, const Options& options);
  // Doesn't wait long for a store that doesn't answer: then its thread is left behind.
  ~Liveness();
  Liveness(const Liveness&) = delete;
  Liveness& operator=(const Liveness&) = delete;

  // Where this process is, shown with its signs of life.
  void set_place(const std::string& place);
  std::string place() const;

  // A collective that this process waits for, from construction to destruction.
  class Waiting {
   public:
    Waiting(Liveness& liveness, const std::string& what);
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Liveness& liveness_;
  };

  // Tells the others that this process ends. Takes at most some seconds.
  void leave(const std::string& why);

  // After a collective has failed: the failure that a process has told of, or who gives no sign of life, or who is at
  // another place. Takes some seconds.
  std::string diagnosis() { return ask(Question::kWhatIsWrong); }
  // The failure that a process has told of, or who gives no sign of life; empty: all are there. Takes some seconds.
  std::string lost() { return ask(Question::kWhoIsLost); }

 private:
  enum class Question { kNone, kWhatIsWrong, kWhoIsLost };
  struct State;
  std::string ask(Question question);
  static void beat(const std::shared_ptr<State>& state);
  static void watch(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

}  // namespace mdm
