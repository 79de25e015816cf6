// What a measurement has to say about the machine and the process it was made on and in (Linux).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mdm::bench {

struct Machine {
  std::string cpu;                        ///< "model name" of /proc/cpuinfo
  std::vector<std::string> instructions;  ///< those of interest that the CPU has, e.g. "avx512_bf16"
  int64_t cores = 0;                      ///< logical ones this process may use
  double memory_gib = 0;
};

Machine this_machine();

/// Largest resident set so far in MiB, mapped files included (VmHWM); since reset_peak_rss() if that worked.
double peak_rss_mib();

/// Lets peak_rss_mib() start afresh; false where the system does not allow it.
bool reset_peak_rss();

}  // namespace mdm::bench
