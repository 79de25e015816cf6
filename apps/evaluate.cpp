// evaluate: how good the pictures of a model are, in numbers that can be compared.
#include <atomic>
#include <csignal>

#include "app_main.h"
#include "mdm/evaluation/evaluate_job.h"

namespace {

constexpr int kSignalBase = 128;
std::atomic<bool> cancelled{false};
std::atomic<int> cancelled_by{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "a signal handler writes them");

// The first signal stops after the pictures at hand; a second one ends the program.
extern "C" void on_interrupt(int signal) {
  cancelled_by.store(signal);
  cancelled.store(true);
  std::signal(signal, SIG_DFL);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  mdm::quiet_c10d();
  return mdm::app_main(argc, argv, mdm::evaluate_app_info(), [](const mdm::ParsedCommandLine& command_line) {
    const int code = mdm::run_evaluate(command_line, cancelled, mdm::end_stuck_process);
    return cancelled && code != 0 ? kSignalBase + cancelled_by : code;  // 130 for Ctrl-C
  });
}
