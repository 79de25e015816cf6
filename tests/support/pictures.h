// How far two pictures are apart.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "mdm/media/image.h"

namespace mdm::test_support {

inline bool same_size(const Image& a, const Image& b) {
  return a.width == b.width && a.height == b.height && a.channels == b.channels && a.pixels.size() == b.pixels.size();
}

/// In steps of 8-bit samples; 256 for pictures of different sizes.
inline int largest_difference(const Image& a, const Image& b) {
  if (!same_size(a, b)) return 256;
  int largest = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<int>(a.pixels[i]) - static_cast<int>(b.pixels[i])));
  }
  return largest;
}

/// Peak signal to noise in dB; infinite for equal pictures, 0 for different sizes.
inline double psnr(const Image& a, const Image& b) {
  if (!same_size(a, b)) return 0;
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const double d = static_cast<double>(a.pixels[i]) - static_cast<double>(b.pixels[i]);
    sum += d * d;
  }
  if (sum == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.pixels.size()) / sum);
}

/// Standard deviation of the samples: 0 for a picture of one colour.
inline double contrast(const Image& a) {
  double sum = 0, squares = 0;
  for (const uint8_t sample : a.pixels) {
    sum += sample;
    squares += static_cast<double>(sample) * sample;
  }
  const auto n = static_cast<double>(a.pixels.size());
  return n == 0 ? 0 : std::sqrt(std::max(0.0, squares / n - sum / n * (sum / n)));
}

}  // namespace mdm::test_support
