#include "machine.h"

#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace mdm::bench {
namespace {

// The text after "KEY\t:" of the first such line of a file in /proc; empty when there is none.
std::string value_of(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
    if (line.find_first_not_of(" \t", key.size()) != colon) continue;
    const size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

}  // namespace

Machine this_machine() {
  Machine machine;
  machine.cpu = value_of("/proc/cpuinfo", "model name");
  std::istringstream flags(value_of("/proc/cpuinfo", "flags"));
  for (std::string flag; flags >> flag;) {
    for (const char* wanted : {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"}) {
      if (flag == wanted) machine.instructions.push_back(flag);
    }
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) machine.cores = CPU_COUNT(&set);
  machine.memory_gib =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE)) / (1 << 30);
  return machine;
}

double peak_rss_mib() { return std::strtod(value_of("/proc/self/status", "VmHWM").c_str(), nullptr) / 1024; }

bool reset_peak_rss() {
  std::ofstream out("/proc/self/clear_refs");
  out << "5" << std::flush;
  return out.good();
}

}  // namespace mdm::bench
