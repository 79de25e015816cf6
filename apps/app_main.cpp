#include "app_main.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "mdm/core/error.h"

namespace mdm {
namespace {

// The CPU's allocator has no type of error of its own.
bool is_out_of_memory(const c10::Error& error) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         std::string_view(error.what_without_backtrace()).find("can't allocate memory") != std::string_view::npos;
}

const char* memory_hint(const AppInfo& info) {
  if (info.use == ConfigUse::kTrain) return "; lower batch_size or set gradient_checkpointing";
  return info.use == ConfigUse::kSample ? "; lower batch_size" : "";
}

}  // namespace

int app_main(int argc, char** argv, const AppInfo& info, const std::function<int(const ParsedCommandLine&)>& run) {
#ifdef SIGXFSZ
  // A limit on file sizes then is an error of the write, like a full disk, and is reported as such.
  std::signal(SIGXFSZ, SIG_IGN);
#endif
  const auto run_plainly = [&](const ParsedCommandLine& command_line) {
    try {
      return run(command_line);
    } catch (const c10::Error& error) {  // its what() goes on with a list of functions
      fail<Error>(error.what_without_backtrace(), is_out_of_memory(error) ? memory_hint(info) : "");
    }
  };
  return run_app(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc), info, run_plainly);
}

void end_stuck_process(const std::string& why) {
  std::fprintf(stderr, "error: this process is ended: %s\n", why.c_str());
  ::_exit(1);
}

void quiet_c10d() { ::setenv("TORCH_CPP_LOG_LEVEL", "ERROR", /*replace=*/0); }

}  // namespace mdm
