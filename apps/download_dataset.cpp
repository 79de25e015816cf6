// download_dataset: pictures with captions from elsewhere, as shards that train_parallel reads.
#include <atomic>
#include <csignal>

#include "app_main.h"
#include "mdm/ingest/download_job.h"

namespace {

std::atomic<bool> stopped{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

// The first signal ends the work in a state that a later call goes on from; a second one ends the program.
extern "C" void on_interrupt(int signal) {
  stopped.store(true);
  std::signal(signal, SIG_DFL);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  std::signal(SIGPIPE, SIG_IGN);
  return mdm::app_main(argc, argv, mdm::download_dataset_app_info(), [](const mdm::ParsedCommandLine& command_line) {
    return mdm::run_download_dataset(command_line, stopped);
  });
}
