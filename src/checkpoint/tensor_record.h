// Where the values of one tensor of a file lie: what every parser of this room hands to TensorFile. The
// parser has checked that all elements are inside the file's bytes. Free of LibTorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/element_type.h"

namespace mdm::checkpoint {

inline constexpr size_t kMaxDimensions = 16;
inline constexpr size_t kMaxTensors = 100'000;
inline constexpr size_t kMaxNameBytes = 4096;

struct TensorRecord {
  std::string name;
  ElementType type = ElementType::kF32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;   // in elements; empty: contiguous
  const uint8_t* data = nullptr;  // the first element, with no promise of alignment; any value when empty
};

// a * b and a + b of numbers >= 0, false when the result does not fit.
inline bool checked_multiply(int64_t a, int64_t b, int64_t& result) { return !__builtin_mul_overflow(a, b, &result); }
inline bool checked_add(int64_t a, int64_t b, int64_t& result) { return !__builtin_add_overflow(a, b, &result); }

// Product of a shape whose entries are >= 0; false when it does not fit. A zero anywhere gives zero only
// when the product of the others fits too, as LibTorch computes strides from it.
inline bool checked_numel(const std::vector<int64_t>& shape, int64_t& numel) {
  int64_t product = 1;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size == 0) empty = true;
    if (size != 0 && !checked_multiply(product, size, product)) return false;
  }
  numel = empty ? 0 : product;
  return true;
}

}  // namespace mdm::checkpoint
