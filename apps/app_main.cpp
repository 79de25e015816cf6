#include "app_main.h"

#include <csignal>
#include <string>
#include <vector>

namespace mdm {

int app_main(int argc, char** argv, const AppInfo& info, const std::function<int(const ParsedCommandLine&)>& run) {
#ifdef SIGXFSZ
  // A limit on file sizes then is an error of the write, like a full disk, and is reported as such.
  std::signal(SIGXFSZ, SIG_IGN);
#endif
  return run_app(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc), info, run);
}

}  // namespace mdm
