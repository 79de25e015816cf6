// Which ranks a quantile lies between.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mdm::ops {

struct QuantileRank {
  int64_t below;  // of `count` numbers in order, counted from 0
  float weight;   // of the next one

  QuantileRank(float q, int64_t count) {
    const float rank = q * static_cast<float>(count - 1);  // float32, as torch.quantile
    below = std::min(static_cast<int64_t>(rank), count - 1);
    weight = rank - static_cast<float>(below);
  }
};

}  // namespace mdm::ops
