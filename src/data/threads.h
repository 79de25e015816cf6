// Work that several threads share, on as many as the system gives.
#pragma once

#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "mdm/core/log.h"

namespace mdm::detail {

/// Starts up to `count` threads that run a copy of `work`; fewer where the system refuses one (a limit on threads or
/// memory), which is for the caller to judge.
template <typename Work>
void add_threads(std::vector<std::thread>& threads, int64_t count, const Work& work) {
  threads.reserve(threads.size() + static_cast<size_t>(count));
  try {
    for (int64_t i = 0; i < count; ++i) threads.emplace_back(work);
  } catch (const std::exception& error) {  // what runs already must be joined, and does the work
    log_warning("only ", threads.size(), " of ", count, " threads can be started: ", error.what());
  }
}

/// Runs `work`, which throws nothing, on the calling thread and up to `count` - 1 others.
template <typename Work>
void run_on_threads(int64_t count, const Work& work) {
  std::vector<std::thread> others;
  if (count > 1) add_threads(others, count - 1, [&work] { work(); });
  work();
  for (auto& thread : others) thread.join();
}

}  // namespace mdm::detail
