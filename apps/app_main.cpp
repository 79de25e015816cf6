#include "app_main.h"

#include <string>
#include <vector>

namespace mdm {

int app_main(int argc, char** argv, const AppInfo& info, const std::function<int(const ParsedCommandLine&)>& run) {
  return run_app(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc), info, run);
}

}  // namespace mdm
