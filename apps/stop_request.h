// How the programs are stopped: the first signal asks them to end in good order, a second one ends them at once.
#pragma once

#include <atomic>
#include <initializer_list>

namespace mdm {

struct StopRequest {
  std::atomic<bool> asked{false};
  std::atomic<int> by{0};  ///< the signal

  /// What shells call a program that a signal ended: 130 for Ctrl-C.
  int exit_code() const;
};

/// From now on these signals ask. One for the process.
StopRequest& stop_on_signals(std::initializer_list<int> signals);

/// For programs that run long: the end of their terminal asks too, except under nohup, and they go on when nobody reads
/// what they write.
StopRequest& stop_on_signals_and_hangup(std::initializer_list<int> signals);

}  // namespace mdm
