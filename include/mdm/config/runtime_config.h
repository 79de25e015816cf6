// What a user can set about the machine: device, precision, threads, log.
#pragma once

#include <cstdint>
#include <string>

namespace mdm {

enum class Precision { kFp32, kBf16 };
/// The name in files and flags: "fp32", "bf16".
std::string choice_name(Precision precision);

struct RuntimeConfig {
  std::string device = "auto";             ///< "auto" (cuda where there is one), "cpu", "cuda" or "cuda:N"
  Precision precision = Precision::kFp32;  ///< arithmetic of the model; key fp16 with 1 means bf16
  int64_t threads = 0;                     ///< CPU threads; 0: all cores
  bool cuda_graphs = true;                 ///< sampling on a GPU: the model's work of a step as one launch
  std::string loglevel;  ///< trace, debug, info, warning, error, off; empty: what MDM_LOG says, else info
};

}  // namespace mdm
