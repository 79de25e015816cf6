// web_demo: models on a web page, and for other programs over HTTP.
#include <csignal>

#include "app_main.h"
#include "mdm/serving/web_demo_job.h"
#include "stop_request.h"

int main(int argc, char** argv) {
  const mdm::StopRequest& stop = mdm::stop_on_signals_and_hangup({SIGINT, SIGTERM});
  return mdm::app_main(argc, argv, mdm::web_demo_app_info(), [&](const mdm::ParsedCommandLine& command_line) {
    return mdm::run_web_demo(command_line, stop.asked);
  });
}
