// web_demo: models on a web page, and for other programs over HTTP.
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "app_main.h"
#include "mdm/serving/web_demo_job.h"

namespace {

constexpr int kSignalBase = 128;
std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

// The first signal ends what is being done in good order; a second one ends the program at once.
extern "C" void on_signal(int signal) {
  if (stop.exchange(true)) ::_exit(kSignalBase + signal);
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, on_signal);
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // under nohup the terminal may go
  std::signal(SIGPIPE, SIG_IGN);                                                // clients go when they like
  return mdm::app_main(argc, argv, mdm::web_demo_app_info(), [](const mdm::ParsedCommandLine& command_line) {
    return mdm::run_web_demo(command_line, stop);
  });
}
