// sample: pictures from prompts.
#include <csignal>

#include "app_main.h"
#include "mdm/pipeline/sample_job.h"
#include "stop_request.h"

int main(int argc, char** argv) {
  const mdm::StopRequest& stop = mdm::stop_on_signals({SIGINT, SIGTERM});
  mdm::quiet_c10d();
  return mdm::app_main(argc, argv, mdm::sample_app_info(), [&](const mdm::ParsedCommandLine& command_line) {
    const int code = mdm::run_sample(command_line, stop.asked, mdm::end_stuck_process);
    return stop.asked && code != 0 ? stop.exit_code() : code;  // 130 for Ctrl-C
  });
}
