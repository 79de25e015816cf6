// What the forward and the backward kernel of GroupNorm share: what is done to a value, and how work is cut.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/group_norm_cpu.h"
#include "ops/vector_math.h"

namespace mdm::ops::norm_kernel {

// Positions whose sums are kept in float32 before they go to float64.
constexpr int64_t kBlock = 256;

// y = (x - center) * factor + offset per channel. With the mean taken off first, a mean that is large
// against the deviation does not cost the result its digits.
struct Affine {
  float* center;
  float* factor;
  float* offset;
};

// What is done to the values of picture `b`, whose groups have statistics (mean, 1 / deviation) each.
void fold_parameters(const GroupNormArguments& a, int64_t b, const double* statistics, const Affine& affine);

// The positions are cut into chunks that threads work on; the number of chunks depends on the shape
// alone, so that the sums, and with them the pictures, do not depend on the number of threads.
struct Chunks {
  int64_t positions, size, count;

  explicit Chunks(const GroupNormArguments& a)
      : positions(a.positions),
        size(std::max<int64_t>(kBlock, 65536 / std::max<int64_t>(a.channels, 1))),
        count((a.positions + size - 1) / size) {}
  int64_t first(int64_t chunk) const { return chunk % count * size; }
  int64_t last(int64_t chunk) const { return std::min(positions, first(chunk) + size); }
  int64_t image(int64_t chunk) const { return chunk / count; }
};

}  // namespace mdm::ops::norm_kernel
