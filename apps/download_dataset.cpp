// download_dataset: pictures with captions from the network, as shards that train_parallel reads.
#include <csignal>

#include "app_main.h"
#include "mdm/ingest/download_job.h"
#include "stop_request.h"

int main(int argc, char** argv) {
  const mdm::StopRequest& stop = mdm::stop_on_signals_and_hangup({SIGINT, SIGTERM});
  return mdm::app_main(argc, argv, mdm::download_dataset_app_info(), [&](const mdm::ParsedCommandLine& command_line) {
    return mdm::run_download_dataset(command_line, stop.asked);
  });
}
