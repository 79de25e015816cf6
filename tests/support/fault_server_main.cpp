// The fault server as a program: prints its URL and serves until it is told to end.
//   fault_server [--port N] [--side N] [--quality Q] [--templates N]
//   fault_server --list COUNT --mix good|faults --base URL > list.tsv
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "support/fault_server.h"

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags;
  for (int i = 1; i + 1 < argc; i += 2) flags[argv[i]] = argv[i + 1];
  const auto number = [&](const char* name, int otherwise) {
    return flags.count(name) != 0 ? std::atoi(flags[name].c_str()) : otherwise;
  };
  if (flags.count("--list") != 0) {
    const auto list = mdm::test_support::fault_list(flags["--base"], static_cast<uint64_t>(number("--list", 0)),
                                                    flags["--mix"] == "faults");
    std::fputs(list.text.c_str(), stdout);
    return 0;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before the server's thread begins
  mdm::test_support::FaultServerOptions options;
  options.port = number("--port", 0);
  options.side = number("--side", options.side);
  options.quality = number("--quality", options.quality);
  options.templates = number("--templates", options.templates);
  const mdm::test_support::FaultServer server(options);
  std::printf("http://127.0.0.1:%d\n%zu bytes a picture\n", server.port(), server.good_picture(0).size());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
}
