// Resizing as training images need it: triangle filter, clamped edges, only the part that is kept.
#include <algorithm>
#include <cmath>
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

// One axis of a picture that is resized: `size` pixels, which stand for `extent` = full / pixel size of its own pixels,
// become `outputs`. With outputs / extent = num / den in lowest terms, output o + num lies den pixels behind output o
// and has the same weights.
struct Axis {
  // How wide a pixel is in the picture's own.
  struct Pixel {
    int reduction = 1;    // by decoding small
    int subsampling = 1;  // of colours in the file

    int width() const { return reduction * subsampling; }
  };

  int size;
  double extent;
  int outputs;
  int64_t num;
  int64_t den;
  bool whole;    // pixels are the picture's own
  double reach;  // of the triangle, in pixels

  Axis(int pixels, int full, const Pixel& pixel, int wanted)
      : size(pixels),
        extent(static_cast<double>(full) / pixel.width()),
        outputs(wanted),
        whole(pixel.width() == 1),
        reach(std::max(1.0, extent / wanted)) {
    const int64_t up = int64_t{wanted} * pixel.width();
    const int64_t common = std::gcd(up, int64_t{full});
    num = up / common;
    den = full / common;
    if (!whole) reach = std::max(reach_of(full, pixel), wanted > extent ? 1.0 : 0.0);
  }

 private:
  // The reach that blurs as much as the triangle does on the whole picture, by variances: reach^2 / 6 of a triangle,
  // (width^2 - 1) / 12 of the box that a reduced pixel is. Subsampled colours of the whole picture are interpolated,
  // by a triangle as well, before they are resized; they are boxes in the file already.
  double reach_of(int full, const Pixel& pixel) const {
    const double on_whole = std::max(1.0, static_cast<double>(full) / outputs);
    const double width = pixel.width(), in_file = pixel.subsampling;
    const double interpolated = pixel.subsampling > 1 ? in_file * in_file : 0;
    const double squared = on_whole * on_whole + interpolated - (width * width - in_file * in_file) / 2;
    return std::max(0.5 * on_whole, std::sqrt(std::max(0.0, squared))) / width;
  }
};

// Weight of input pixel i in output pixel o of the first period. For a whole picture, float and this order of
// operations are the reference's: values that are a half in exact arithmetic then round as they do there.
float tap_weight(const Axis& axis, int i, int o) {
  const float input = static_cast<float>(i) + 0.5f;
  const float output = static_cast<float>(o) + 0.5f;
  const auto step = static_cast<float>(axis.extent / axis.outputs);
  if (!axis.whole) return std::max(0.0f, 1.0f - std::abs(input - output * step) / static_cast<float>(axis.reach));
  if (axis.extent <= axis.outputs) return std::max(0.0f, 1.0f - std::abs(input - output * step));
  const auto scale = static_cast<float>(axis.outputs / axis.extent);
  return std::max(0.0f, 1.0f - std::abs(input * scale - output)) * scale;
}

// The taps of outputs [from, from + kept).
Taps clamped_taps(const Axis& axis, int from, int kept) {
  const double step = axis.extent / axis.outputs;
  Taps taps;
  taps.begin = axis.size;
  std::vector<float> row;
  for (int o = from; o < from + kept; ++o) {
    const int phase = static_cast<int>(o % axis.num);
    const int shift = static_cast<int>(o / axis.num * axis.den);
    const double centre = (phase + 0.5) * step;
    const int first = static_cast<int>(std::floor(centre - axis.reach - 0.5));
    const int last = static_cast<int>(std::ceil(centre + axis.reach - 0.5));
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

// sums (+)= weights[0] * rows[0] + ... of `taps` rows, added one after the other.
template <size_t taps>
inline __attribute__((always_inline)) void add_taps(float* __restrict sums, const uint8_t* const* rows,
                                                    const float* weights, size_t count, bool first) {
  const uint8_t* from[taps];
  float weight[taps];
  std::copy_n(rows, taps, from);
  std::copy_n(weights, taps, weight);
  if (first) std::fill_n(sums, count, 0.0f);
  for (size_t i = 0; i < count; ++i) {
    float sum = sums[i];
    for (size_t k = 0; k < taps; ++k) sum += weight[k] * static_cast<float>(from[k][i]);
    sums[i] = sum;
  }
}

constexpr size_t kTapsAtOnce = 4;

MDM_RESIZE_CLONES void add_rows(float* __restrict sums, const uint8_t* const* rows, const float* weights, size_t taps,
                                size_t count, bool first) {
  switch (taps) {
    case 1: return add_taps<1>(sums, rows, weights, count, first);
    case 2: return add_taps<2>(sums, rows, weights, count, first);
    case 3: return add_taps<3>(sums, rows, weights, count, first);
    default: return add_taps<kTapsAtOnce>(sums, rows, weights, count, first);
  }
}

// Rows of the result are made eight at a time, a lane of a vector each (an extension of GCC and Clang): what one tap
// costs is then shared by eight samples, whatever the channels. Lanes lie side by side: (columns, channels, kLanes).
constexpr size_t kLanes = 8;
using Lanes = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using IntLanes = int32_t __attribute__((vector_size(4 * kLanes)));

Lanes& lanes_at(float* values, size_t i) { return *reinterpret_cast<Lanes*>(values + i * kLanes); }
const Lanes& lanes_at(const float* values, size_t i) { return *reinterpret_cast<const Lanes*>(values + i * kLanes); }

// kLanes rows of `count` floats to lanes.
MDM_RESIZE_CLONES void to_lanes(const float* __restrict rows, size_t count, float* __restrict lanes) {
  for (size_t i = 0; i < count; ++i) {
    for (size_t r = 0; r < kLanes; ++r) lanes[i * kLanes + r] = rows[r * count + i];
  }
}

// `lanes` begin at column taps.begin.
MDM_RESIZE_CLONES void across(const Taps& taps, const float* __restrict lanes, size_t channels, float* __restrict out) {
  const auto begin = static_cast<size_t>(taps.begin);
  for (const auto& span : taps.spans) {
    const float* weights = taps.weights.data() + span.weights;
    const size_t first = (static_cast<size_t>(span.first) - begin) * channels;
    for (size_t c = 0; c < channels; ++c, out += kLanes) {
      Lanes sum = {};
      for (size_t k = 0; k < static_cast<size_t>(span.count); ++k) {
        sum += weights[k] * lanes_at(lanes, first + k * channels + c);
      }
      lanes_at(out, 0) = sum;
    }
  }
}

// Full-range BT.601, as JFIF has it. luma, blue, red: (columns, kLanes) -> (columns, 3, kLanes).
MDM_RESIZE_CLONES void to_colours(const float* luma, const float* blue, const float* red, size_t columns, float* rgb) {
  for (size_t i = 0; i < columns; ++i) {
    const Lanes y = lanes_at(luma, i), cb = lanes_at(blue, i) - 128.0f, cr = lanes_at(red, i) - 128.0f;
    lanes_at(rgb, 3 * i) = y + 1.402f * cr;
    lanes_at(rgb, 3 * i + 1) = y - 0.344136f * cb - 0.714136f * cr;
    lanes_at(rgb, 3 * i + 2) = y + 1.772f * cb;
  }
}

// Rounds the first `rows` lanes to rows of bytes, `count` samples each.
MDM_RESIZE_CLONES void store_rows(const float* lanes, size_t count, size_t rows, uint8_t* out) {
  const Lanes low = {}, high = low + 255.0f;
  for (size_t i = 0; i < count; ++i) {
    Lanes sample = lanes_at(lanes, i) + 0.5f;
    sample = sample > low ? sample : low;
    sample = sample < high ? sample : high;
    const IntLanes rounded = __builtin_convertvector(sample, IntLanes);
    for (size_t r = 0; r < rows; ++r) out[r * count + i] = static_cast<uint8_t>(rounded[r]);
  }
}

// What the pixels of a part are made of.
struct PartTaps {
  Taps columns;
  Taps rows;

  PartTaps(const Axis& across_axis, const Axis& down_axis, const Part& kept)
      : columns(clamped_taps(across_axis, kept.x, kept.width)), rows(clamped_taps(down_axis, kept.y, kept.height)) {}
};

// One picture on its way to another size, strip by strip. Keeps references to both.
class StripResizer {
 public:
  StripResizer(const Image& image, const PartTaps& taps)
      : image_(image),
        taps_(taps),
        channels_(static_cast<size_t>(image.channels)),
        count_(static_cast<size_t>(taps.columns.end - taps.columns.begin) * channels_),
        sums_(count_ * kLanes),
        lanes_(count_ * kLanes),
        strip_(taps.columns.spans.size() * channels_ * kLanes) {}

  // Rows y to y + rows - 1 of the part that is kept, at most kLanes, unrounded: (columns, channels, kLanes).
  const float* strip(int y, size_t rows) {
    for (size_t r = 0; r < rows; ++r) sum_down(static_cast<size_t>(y) + r, sums_.data() + r * count_);
    to_lanes(sums_.data(), count_, lanes_.data());
    across(taps_.columns, lanes_.data(), channels_, strip_.data());
    return strip_.data();
  }

 private:
  void sum_down(size_t y, float* sums) const {
    const size_t first = static_cast<size_t>(taps_.columns.begin) * channels_;
    const auto& span = taps_.rows.spans[y];
    const float* weights = taps_.rows.weights.data() + span.weights;
    const auto all = static_cast<size_t>(span.count);
    for (size_t k = 0; k < all; k += kTapsAtOnce) {
      const uint8_t* rows[kTapsAtOnce] = {};
      const size_t taps = std::min(kTapsAtOnce, all - k);
      for (size_t i = 0; i < taps; ++i) rows[i] = image_.row(span.first + static_cast<int>(k + i)) + first;
      add_rows(sums, rows, weights + k, taps, count_, k == 0);
    }
  }

  const Image& image_;
  const PartTaps& taps_;
  size_t channels_;
  size_t count_;             // samples of a source row that any output needs
  std::vector<float> sums_;  // kLanes rows of them, resized down
  std::vector<float> lanes_;
  std::vector<float> strip_;
};

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

// Calls make_strip(y, rows) -> lanes for one strip after the other.
template <typename MakeStrip>
Image from_strips(const Part& kept, int channels, const MakeStrip& make_strip) {
  Image resized(kept.width, kept.height, channels);
  for (int y = 0; y < kept.height; y += static_cast<int>(kLanes)) {
    const size_t rows = std::min(kLanes, static_cast<size_t>(kept.height - y));
    store_rows(make_strip(y, rows), resized.row_bytes(), rows, resized.row(y));
  }
  return resized;
}

void check_resize(const Image& image, int width, int height) {
  check_image(image, "resize_clamped");
  if (width < 1 || height < 1) fail<Error>("resize_clamped: ", width, " x ", height, " pixels are not possible");
}

// For a plane of a reduced picture whose pixels stand for `across` x `down` of the image's.
PartTaps plane_taps(const ReducedImage& source, const Image& plane, int across, int down, int width, int height,
                    const Part& kept) {
  return {Axis(plane.width, source.full_width, {source.reduction, across}, width),
          Axis(plane.height, source.full_height, {source.reduction, down}, height), kept};
}

Image resize_whole(const Image& image, const PartTaps& taps, const Part& kept) {
  StripResizer resizer(image, taps);
  return from_strips(kept, image.channels, [&](int y, size_t rows) { return resizer.strip(y, rows); });
}

}  // namespace

Image resize_clamped(const ReducedImage& source, int width, int height, const Part& part) {
  check_resize(source.image, width, height);
  const Part kept = whole_or(part, width, height);
  const PartTaps taps = plane_taps(source, source.image, 1, 1, width, height, kept);
  if (source.chroma.empty()) return resize_whole(source.image, taps, kept);
  if (source.image.channels != 1 || source.chroma.size() != 2 ||
      source.chroma[0].pixels.size() != source.chroma[1].pixels.size()) {
    fail<Error>("resize_clamped: colours that are apart are luma and two planes of the same size");
  }
  const Image &blue = source.chroma[0], &red = source.chroma[1];
  check_image(blue, "resize_clamped");
  check_image(red, "resize_clamped");
  const PartTaps colour_taps = plane_taps(source, blue, source.chroma_across, source.chroma_down, width, height, kept);
  StripResizer luma(source.image, taps), blue_difference(blue, colour_taps), red_difference(red, colour_taps);
  const auto columns = static_cast<size_t>(kept.width);
  std::vector<float> colours(columns * 3 * kLanes);
  return from_strips(kept, 3, [&](int y, size_t rows) {
    to_colours(luma.strip(y, rows), blue_difference.strip(y, rows), red_difference.strip(y, rows), columns,
               colours.data());
    return colours.data();
  });
}

Image resize_clamped(const Image& image, int width, int height, const Part& part) {
  check_resize(image, width, height);
  const Part kept = whole_or(part, width, height);
  const Axis across_axis(image.width, image.width, {}, width), down_axis(image.height, image.height, {}, height);
  return resize_whole(image, PartTaps(across_axis, down_axis, kept), kept);
}

}  // namespace mdm
