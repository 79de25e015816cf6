#include "stop_request.h"

#include <unistd.h>

#include <csignal>

namespace mdm {
namespace {

constexpr int kSignalBase = 128;
StopRequest request;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "a signal handler writes them");

extern "C" void on_signal(int signal) {
  if (request.asked) ::_exit(kSignalBase + signal);
  request.by = signal;
  request.asked = true;
}

}  // namespace

int StopRequest::exit_code() const { return kSignalBase + by; }

StopRequest& stop_on_signals(std::initializer_list<int> signals) {
  for (const int signal : signals) std::signal(signal, on_signal);
  return request;
}

StopRequest& stop_on_signals_and_hangup(std::initializer_list<int> signals) {
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  return stop_on_signals(signals);
}

}  // namespace mdm
