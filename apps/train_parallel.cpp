// train_parallel: trains a model on captioned images.
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "app_main.h"
#include "mdm/evaluation/training_scorer.h"
#include "mdm/training/train_job.h"

namespace {

constexpr int kSignalBase = 128;
std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

// The first signal stops after the current step, with a checkpoint; a second one ends the program at once.
extern "C" void on_signal(int signal) {
  if (stop.exchange(true)) ::_exit(kSignalBase + signal);
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) std::signal(signal, on_signal);
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // under nohup the terminal may go
  std::signal(SIGPIPE, SIG_IGN);                                                // who reads the log may go too
  mdm::quiet_c10d();
  mdm::AppInfo info = mdm::train_app_info();
  info.options = mdm::training_scorer_options();
  return mdm::app_main(argc, argv, info, [](const mdm::ParsedCommandLine& command_line) {
    return mdm::run_train(command_line, stop, mdm::end_stuck_process, mdm::make_training_scorer);
  });
}
