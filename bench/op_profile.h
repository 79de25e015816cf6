// Where the time of a step goes: per operation and shape its own time, FLOP and bytes, from LibTorch's record
// functions (our fused operations record themselves).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "measure.h"

namespace mdm::bench {

struct OpCost {
  std::string name;    ///< e.g. "mkldnn::_convolution_pointwise"
  std::string shapes;  ///< of its tensors, e.g. "2x256x64x64 256x256x3x3 -> 2x256x64x64"
  int64_t calls = 0;
  double seconds = 0;  ///< without the operations inside it
  double flop = 0;     ///< of products and convolutions, 2 per multiplication; 0 for what moves numbers only
  double bytes = 0;    ///< of all tensors read and written, once each
};

/// Costs of all operations that `work` makes in this thread, the most expensive first. What lies between
/// operations (our own loops, the calls themselves) is the row "(between operations)".
std::vector<OpCost> profile_of(const std::function<void()>& work);

/// What this machine can do at best with the threads in use.
struct MachineLimits {
  double gemm_fp32 = 0, gemm_bf16 = 0;  ///< FLOP/s of a large product of matrices
  double conv_fp32 = 0, conv_bf16 = 0;  ///< FLOP/s of the best of some 3x3 convolutions, channels_last, packed
  double bandwidth = 0;                 ///< bytes/s read and written by copying what no cache holds
};
MachineLimits measure_limits();

Json to_json(const MachineLimits& limits);
/// One row for each op, with its share of the time and how far from the machine's limit it is:
/// the larger of flop / rate and bytes / bandwidth, over the seconds.
Json to_json(const std::vector<OpCost>& costs, const MachineLimits& limits, bool bf16);
/// The same as a Markdown table of the `most` first rows.
std::string to_table(const std::vector<OpCost>& costs, const MachineLimits& limits, bool bf16, size_t most);

/// Measures the machine, profiles one call of `work`, and prints the table to the standard error output.
void print_profile(const std::function<void()>& work, bool bf16);

}  // namespace mdm::bench
