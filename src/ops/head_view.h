// Attention heads as kernels see them: which there are, and where their rows lie.
#pragma once

#include <cstdint>

namespace mdm::ops {

// Element (b, h, i, c) is at data[b * batch + h * head + i * row + c].
template <typename T>
struct HeadView {
  T* data = nullptr;
  int64_t batch = 0, head = 0, row = 0;
};

template <typename T>
T* rows_of(const HeadView<T>& view, int64_t b, int64_t h) {
  return view.data + b * view.batch + h * view.head;
}

struct HeadShape {
  int64_t batch = 0, heads = 0, queries = 0, keys = 0, width = 0;
  const bool* mask = nullptr;  // (B, keys): true where queries may look; nullptr: everywhere
};

}  // namespace mdm::ops
