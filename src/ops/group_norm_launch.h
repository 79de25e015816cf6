// How the GroupNorm kernels of a CUDA device cut their work. It depends on the shape alone, so that sums are added in
// the same order on every device. Plain C++: tested without one.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mdm::ops {

struct GroupNormLaunch {
  static constexpr int64_t kThreads = 256;

  int64_t vector;          // channels that a thread reads at once
  int64_t lanes;           // vectors of a position
  int64_t lanes_of_block;  // of them, what one block works on
  int64_t lane_blocks;     // blocks side by side
  int64_t rows;            // positions that a block reads at a time
  int64_t chunk;           // positions of a block in all
  int64_t chunks;          // blocks of a picture, one below the other

  // `most_vector`: 16 bytes' worth of elements.
  GroupNormLaunch(int64_t positions, int64_t channels, int64_t most_vector)
      : vector(channels % most_vector == 0 ? most_vector : 1),
        lanes(channels / vector),
        lanes_of_block(std::min(lanes, kThreads)),
        lane_blocks((lanes + lanes_of_block - 1) / lanes_of_block),
        rows(kThreads / lanes_of_block),
        chunk(std::max(8 * rows, (positions + kMostChunks - 1) / kMostChunks)),
        chunks((positions + chunk - 1) / chunk) {}

  int64_t threads() const { return lanes_of_block * rows; }
  // Two sums of each row and channel of a block.
  int64_t shared_bytes() const { return 2 * rows * lanes_of_block * vector * static_cast<int64_t>(sizeof(float)); }

 private:
  static constexpr int64_t kMostChunks = 256;
};

}  // namespace mdm::ops
