// Resizing as training images need it: triangle filter, clamped edges, only the part that is kept.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "mdm/core/error.h"
#include "mdm/media/resize.h"

// Release builds have one copy of the loops per vector unit; the linker picks by CPU. No copy fuses multiplications
// and additions (-ffp-contract=off), so all give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__)
#define MDM_RESIZE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MDM_RESIZE_CLONES
#endif

namespace mdm {
namespace {

// For each output of one axis: the inputs that it is made of, first .. first + count - 1, and their weights.
struct Taps {
  struct Span {
    int first;
    int count;
    size_t weights;  // where they begin
  };
  std::vector<Span> spans;
  std::vector<float> weights;
  int begin = 0;  // inputs that any output needs: [begin, end)
  int end = 0;
};

// One axis of a picture that is resized: `size` pixels, which stand for full / reduction of its own pixels, become
// `outputs`. With outputs * reduction / full = num / den in lowest terms, output o + num lies den pixels behind output
// o and has the same weights.
struct Axis {
  int size;
  double extent;
  int outputs;
  int64_t num;
  int64_t den;
  float narrow = 1;  // reach of the filter, as a share of what the rule says

  Axis(int pixels, int full, int reduction, int wanted)
      : size(pixels), extent(static_cast<double>(full) / reduction), outputs(wanted) {
    const int64_t up = int64_t{wanted} * reduction;
    const int64_t common = std::gcd(up, int64_t{full});
    num = up / common;
    den = full / common;
    // Reducing has blurred the picture as much as a box of `reduction` pixels, so the triangle blurs less: the
    // variances of both, (reduction^2 - 1) / 12 and reach^2 / 6, make that of the triangle alone on the whole picture.
    const double reach = std::max(1.0, static_cast<double>(full) / wanted);
    const double blurred = (static_cast<double>(reduction) * reduction - 1) / (2 * reach * reach);
    narrow = static_cast<float>(std::sqrt(std::max(0.25, 1 - blurred)));
  }
};

// Weight of input pixel i in output pixel o of the first period. Float and this order of operations are the
// reference's: values that are a half in exact arithmetic then round as they do there.
float tap_weight(const Axis& axis, int i, int o) {
  const float input = static_cast<float>(i) + 0.5f;
  const float output = static_cast<float>(o) + 0.5f;
  if (axis.extent > axis.outputs) {
    const auto scale = static_cast<float>(axis.outputs / axis.extent);
    return std::max(0.0f, 1.0f - std::abs(input * scale - output) / axis.narrow) * scale;
  }
  const auto scale = static_cast<float>(axis.extent / axis.outputs);
  return std::max(0.0f, 1.0f - std::abs(input - output * scale));
}

// The taps of outputs [from, from + kept).
Taps clamped_taps(const Axis& axis, int from, int kept) {
  const double step = axis.extent / axis.outputs;
  const double reach = std::max(step, 1.0);
  Taps taps;
  taps.begin = axis.size;
  std::vector<float> row;
  for (int o = from; o < from + kept; ++o) {
    const int phase = static_cast<int>(o % axis.num);
    const int shift = static_cast<int>(o / axis.num * axis.den);
    const double centre = (phase + 0.5) * step;
    const int first = static_cast<int>(std::floor(centre - reach - 0.5));
    const int last = static_cast<int>(std::ceil(centre + reach - 0.5));
    row.clear();
    for (int i = first; i <= last; ++i) row.push_back(tap_weight(axis, i, phase));
    float sum = 0;
    for (const float weight : row) sum += weight;
    const int low = std::clamp(first + shift, 0, axis.size - 1);
    const int high = std::clamp(last + shift, low, axis.size - 1);
    const size_t start = taps.weights.size();
    taps.weights.resize(start + static_cast<size_t>(high - low + 1), 0.0f);
    for (int i = first; i <= last; ++i) {
      const int place = std::clamp(i + shift, low, high) - low;
      taps.weights[start + static_cast<size_t>(place)] += row[static_cast<size_t>(i - first)] * (1.0f / sum);
    }
    taps.spans.push_back({low, high - low + 1, start});
    taps.begin = std::min(taps.begin, low);
    taps.end = std::max(taps.end, high + 1);
  }
  return taps;
}

// sums (+)= weight * row
MDM_RESIZE_CLONES void add_row(float* __restrict sums, const uint8_t* __restrict row, float weight, size_t count,
                               bool first) {
  if (first) {
    for (size_t i = 0; i < count; ++i) sums[i] = weight * static_cast<float>(row[i]);
  } else {
    for (size_t i = 0; i < count; ++i) sums[i] += weight * static_cast<float>(row[i]);
  }
}

// Four floats in one register, whatever the machine (an extension of GCC and Clang).
using Four = float __attribute__((vector_size(16)));
using FourInts = int32_t __attribute__((vector_size(16)));

// One row of floats across: `row` begins at column taps.begin and has kSlack floats behind its end. Four sums whatever
// the channels, so that they fill a register.
template <size_t kChannels>
void across(const Taps& taps, const float* row, uint8_t* out) {
  const Four low = {0, 0, 0, 0}, high = {255, 255, 255, 255};
  const size_t begin = static_cast<size_t>(taps.begin);
  for (const auto& span : taps.spans) {
    const float* weights = taps.weights.data() + span.weights;
    const float* from = row + (static_cast<size_t>(span.first) - begin) * kChannels;
    Four sums = low;
    for (int k = 0; k < span.count; ++k, from += kChannels) {
      Four samples;
      std::memcpy(&samples, from, sizeof samples);
      sums += weights[k] * samples;
    }
    sums += 0.5f;
    sums = sums > low ? sums : low;
    sums = sums < high ? sums : high;
    const FourInts rounded = __builtin_convertvector(sums, FourInts);
    for (size_t c = 0; c < kChannels; ++c) *out++ = static_cast<uint8_t>(rounded[c]);
  }
}

constexpr size_t kSlack = 3;  // floats that across() reads beyond the last pixel

using Across = void (*)(const Taps&, const float*, uint8_t*);

Across across_for(int channels) {
  switch (channels) {
    case 1: return across<1>;
    case 2: return across<2>;
    case 3: return across<3>;
    default: return across<4>;
  }
}

Part whole_or(const Part& part, int width, int height) {
  if (part.width == 0) return {0, 0, width, height};
  const bool inside = part.x >= 0 && part.y >= 0 && part.width > 0 && part.height > 0 && part.x <= width - part.width &&
                      part.y <= height - part.height;
  if (!inside) {
    fail<Error>("resize_clamped: the part of ", part.width, " x ", part.height, " pixels at ", part.x, ", ", part.y,
                " leaves the result of ", width, " x ", height);
  }
  return part;
}

Image resize_along(const Image& image, const Axis& across_axis, const Axis& down_axis, const Part& kept) {
  const Taps columns = clamped_taps(across_axis, kept.x, kept.width);
  const Taps rows = clamped_taps(down_axis, kept.y, kept.height);
  const auto channels = static_cast<size_t>(image.channels);
  const size_t first = static_cast<size_t>(columns.begin) * channels;
  const size_t count = static_cast<size_t>(columns.end - columns.begin) * channels;
  std::vector<float> sums(count + kSlack, 0.0f);
  const Across pass = across_for(image.channels);
  Image resized(kept.width, kept.height, image.channels);
  for (int y = 0; y < kept.height; ++y) {
    const auto& span = rows.spans[static_cast<size_t>(y)];
    for (int k = 0; k < span.count; ++k) {
      add_row(sums.data(), image.row(span.first + k) + first, rows.weights[span.weights + static_cast<size_t>(k)],
              count, k == 0);
    }
    pass(columns, sums.data(), resized.row(y));
  }
  return resized;
}

}  // namespace

Image resize_clamped(const ReducedImage& source, int width, int height, const Part& part) {
  const Image& image = source.image;
  check_image(image, "resize_clamped");
  if (width < 1 || height < 1) fail<Error>("resize_clamped: ", width, " x ", height, " pixels are not possible");
  return resize_along(image, Axis(image.width, source.full_width, source.reduction, width),
                      Axis(image.height, source.full_height, source.reduction, height), whole_or(part, width, height));
}

Image resize_clamped(const Image& image, int width, int height, const Part& part) {
  check_image(image, "resize_clamped");
  if (width < 1 || height < 1) fail<Error>("resize_clamped: ", width, " x ", height, " pixels are not possible");
  return resize_along(image, Axis(image.width, image.width, 1, width), Axis(image.height, image.height, 1, height),
                      whole_or(part, width, height));
}

}  // namespace mdm
