// train_parallel: trains a model on captioned images.
#include <csignal>

#include "app_main.h"
#include "mdm/evaluation/training_scorer.h"
#include "mdm/training/train_job.h"
#include "stop_request.h"

int main(int argc, char** argv) {
  const mdm::StopRequest& stop = mdm::stop_on_signals_and_hangup({SIGINT, SIGTERM, SIGUSR1});
  mdm::quiet_c10d();
  return mdm::app_main(argc, argv, mdm::train_app_info(), [&](const mdm::ParsedCommandLine& command_line) {
    return mdm::run_train(command_line, stop.asked, mdm::end_stuck_process, mdm::make_training_scorer);
  });
}
