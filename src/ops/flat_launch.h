// How CUDA kernels over flat data are cut. It depends on the size alone. Plain C++: tested without a device.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mdm::ops {

// Elementwise: each thread takes every (blocks x threads)-th item, of one or several elements.
struct FlatLaunch {
  static constexpr int64_t kThreads = 256;
  static constexpr int64_t kMostBlocks = 4096;  // several waves of any device

  static int64_t blocks(int64_t items) {
    return std::clamp<int64_t>((items + kThreads - 1) / kThreads, 1, kMostBlocks);
  }
};

// Sums: a block for each chunk of consecutive elements; the chunks' sums are added by one more block.
struct SumLaunch {
  static constexpr int64_t kThreads = 256;
  static constexpr int64_t kChunk = 1 << 14;

  static int64_t blocks(int64_t count) { return (count + kChunk - 1) / kChunk; }
};

}  // namespace mdm::ops
