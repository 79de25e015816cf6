// download_dataset: pictures with captions from the network, as shards that train_parallel reads.
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "app_main.h"
#include "mdm/ingest/download_job.h"

namespace {

constexpr int kSignalBase = 128;
std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

// The first signal ends what is being done, and keeps it; a second one ends the program at once.
extern "C" void on_signal(int signal) {
  if (stop.exchange(true)) ::_exit(kSignalBase + signal);
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, on_signal);
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // under nohup the terminal may go
  std::signal(SIGPIPE, SIG_IGN);                                                // who reads the log may go too
  return mdm::app_main(argc, argv, mdm::download_dataset_app_info(), [](const mdm::ParsedCommandLine& command_line) {
    return mdm::run_download_dataset(command_line, stop);
  });
}
