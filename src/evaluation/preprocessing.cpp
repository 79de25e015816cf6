#include "mdm/evaluation/preprocessing.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "mdm/core/error.h"
#include "mdm/evaluation/inception.h"
#include "mdm/media/resize.h"

namespace mdm {
namespace {

constexpr Normalization kImageNet{{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}};

at::Tensor floats(std::vector<int64_t> shape) { return at::empty(shape, at::TensorOptions().dtype(at::kFloat)); }

// (3, H, W) float of 0 to 255.
at::Tensor planes_of(const Image& rgb) {
  at::Tensor planes = floats({3, rgb.height, rgb.width});
  auto* out = planes.mutable_data_ptr<float>();
  const size_t pixels = static_cast<size_t>(rgb.height) * static_cast<size_t>(rgb.width);
  for (size_t c = 0; c < 3; ++c) {
    for (size_t i = 0; i < pixels; ++i) out[c * pixels + i] = static_cast<float>(rgb.pixels[3 * i + c]);
  }
  return planes;
}

// TensorFlow 1's places: output i is at i * (size / new size), between the pixels below and above.
struct Lerp {
  std::vector<int> low, high;
  std::vector<float> share;
};

Lerp tensorflow_places(int size, int new_size) {
  const float scale = static_cast<float>(size) / static_cast<float>(new_size);
  Lerp lerp;
  for (int i = 0; i < new_size; ++i) {
    const float at = static_cast<float>(i) * scale;
    const int low = std::min(static_cast<int>(at), size - 1);
    lerp.low.push_back(low);
    lerp.high.push_back(std::min(low + 1, size - 1));
    lerp.share.push_back(at - static_cast<float>(low));
  }
  return lerp;
}

at::Tensor resize_as_tensorflow(const Image& rgb, int side) {
  const Lerp across = tensorflow_places(rgb.width, side), down = tensorflow_places(rgb.height, side);
  at::Tensor resized = floats({3, side, side});
  float* out = resized.mutable_data_ptr<float>();
  for (size_t c = 0; c < 3; ++c) {
    for (size_t y = 0; y < static_cast<size_t>(side); ++y) {
      const uint8_t* upper = rgb.row(down.low[y]) + c;
      const uint8_t* lower = rgb.row(down.high[y]) + c;
      for (size_t x = 0; x < static_cast<size_t>(side); ++x) {
        const size_t left = 3 * static_cast<size_t>(across.low[x]), right = 3 * static_cast<size_t>(across.high[x]);
        const auto mix = [&](const uint8_t* row) {
          const auto first = static_cast<float>(row[left]);
          return first + (static_cast<float>(row[right]) - first) * across.share[x];
        };
        const float top = mix(upper);
        *out++ = top + (mix(lower) - top) * down.share[y];
      }
    }
  }
  return resized;
}

at::Tensor resize_cleanly(const Image& rgb, int side) {
  const at::Tensor planes = planes_of(rgb);
  const std::vector<float> values = resize_planes(planes.const_data_ptr<float>(), 3, rgb.height, rgb.width, side, side);
  at::Tensor resized = floats({3, side, side});
  std::memcpy(resized.mutable_data_ptr(), values.data(), values.size() * sizeof(float));
  return resized.clamp_(0, 255);
}

// Keys 1981 with a = -0.5.
double cubic(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

constexpr int kFractionBits = 22;  // of Pillow's weights: 32 bits, less 8 for the sample, less 2 for sums beyond 255

// For each output the first input, and whole-numbered weights.
struct Taps {
  std::vector<int> first;
  std::vector<std::vector<int32_t>> weights;
};

Taps pillow_taps(int size, int new_size) {
  const double scale = static_cast<double>(size) / new_size, stretch = std::max(scale, 1.0), support = 2 * stretch;
  Taps taps;
  for (int i = 0; i < new_size; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(centre - support + 0.5));
    const int last = std::min(size, static_cast<int>(centre + support + 0.5));
    std::vector<double> values;
    double sum = 0;
    for (int k = first; k < last; ++k) {
      values.push_back(cubic((k - centre + 0.5) * (1 / stretch)));
      sum += values.back();
    }
    std::vector<int32_t> weights;
    for (const double value : values) {
      const double scaled = (sum != 0 ? value / sum : value) * (1 << kFractionBits);
      weights.push_back(static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
    taps.first.push_back(first);
    taps.weights.push_back(std::move(weights));
  }
  return taps;
}

// Weighted sums along one axis: samples `step` apart make one result.
uint8_t tapped(const uint8_t* from, size_t step, const std::vector<int32_t>& weights) {
  int64_t sum = int64_t{1} << (kFractionBits - 1);
  for (size_t k = 0; k < weights.size(); ++k) sum += int64_t{from[k * step]} * weights[k];
  return static_cast<uint8_t>(std::clamp<int64_t>(sum >> kFractionBits, 0, 255));
}

Image resized_across(const Image& image, int width) {
  const Taps taps = pillow_taps(image.width, width);
  Image out(width, image.height, image.channels);
  const auto step = static_cast<size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) {
    uint8_t* to = out.row(y);
    for (size_t x = 0; x < static_cast<size_t>(width); ++x) {
      const uint8_t* from = image.row(y) + static_cast<size_t>(taps.first[x]) * step;
      for (size_t c = 0; c < step; ++c) *to++ = tapped(from + c, step, taps.weights[x]);
    }
  }
  return out;
}

Image resized_down(const Image& image, int height) {
  const Taps taps = pillow_taps(image.height, height);
  Image out(image.width, height, image.channels);
  const size_t row = image.row_bytes();
  for (int y = 0; y < height; ++y) {
    const uint8_t* from = image.row(taps.first[static_cast<size_t>(y)]);
    for (size_t i = 0; i < row; ++i) out.row(y)[i] = tapped(from + i, row, taps.weights[static_cast<size_t>(y)]);
  }
  return out;
}

at::Tensor normalized(const Image& rgb, const Normalization& normalization) {
  at::Tensor planes = planes_of(rgb);
  float* out = planes.mutable_data_ptr<float>();
  const size_t pixels = static_cast<size_t>(rgb.height) * static_cast<size_t>(rgb.width);
  for (size_t c = 0; c < 3; ++c) {
    for (size_t i = 0; i < pixels; ++i, ++out) {
      *out = (*out / 255.0F - normalization.mean[c]) / normalization.deviation[c];
    }
  }
  return planes;
}

}  // namespace

InceptionResize parse_inception_resize(const std::string& name) {
  for (const auto resize : {InceptionResize::kTensorFlow, InceptionResize::kPytorchFid, InceptionResize::kClean}) {
    if (name == inception_resize_name(resize)) return resize;
  }
  fail<ConfigError>("fid-resize: '", printable(name), "' is none of tf1, pytorch-fid, clean");
}

const char* inception_resize_name(InceptionResize resize) {
  switch (resize) {
    case InceptionResize::kTensorFlow: return "tf1";
    case InceptionResize::kPytorchFid: return "pytorch-fid";
    case InceptionResize::kClean: break;
  }
  return "clean";
}

at::Tensor inception_input(const Image& image, InceptionResize resize) {
  const Image rgb = to_rgb(image, AlphaRule::kDrop);
  constexpr int kSide = InceptionV3::kSide;
  if (resize == InceptionResize::kPytorchFid) {
    const at::Tensor planes = planes_of(rgb).div_(255).unsqueeze(0);
    return at::upsample_bilinear2d(planes, {kSide, kSide}, /*align_corners=*/false).squeeze(0).mul_(2).sub_(1);
  }
  at::Tensor x = resize == InceptionResize::kClean ? resize_cleanly(rgb, kSide) : resize_as_tensorflow(rgb, kSide);
  return x.sub_(128).div_(128);
}

Image resize_as_pillow(const Image& image, int width, int height) {
  check_image(image, "resize_as_pillow");
  if (width < 1 || height < 1) fail<Error>("resize_as_pillow: ", width, " x ", height, " pixels are not possible");
  // As Pillow 13 decides, found by comparing pictures; earlier ones always went across first.
  const bool down_first = height < image.height && image.height - height > 2 * (image.width - width);
  const auto across = [&](const Image& from) { return width == from.width ? from : resized_across(from, width); };
  const auto down = [&](const Image& from) { return height == from.height ? from : resized_down(from, height); };
  return down_first ? across(down(image)) : down(across(image));
}

at::Tensor clip_input(const Image& image, int side, const Normalization& normalization) {
  const Image rgb = to_rgb(image, AlphaRule::kDrop);
  const int smaller = std::min(rgb.width, rgb.height), larger = std::max(rgb.width, rgb.height);
  constexpr int64_t kLongest = 1 << 20;  // a strip of one pixel's height would need a long row
  const int64_t longer = int64_t{side} * larger / smaller;
  if (longer > kLongest) fail<DataError>("a picture of ", rgb.width, " x ", rgb.height, " pixels is too narrow");
  const bool wide = rgb.width > rgb.height;
  const Image resized =
      resize_as_pillow(rgb, wide ? static_cast<int>(longer) : side, wide ? side : static_cast<int>(longer));
  return normalized(center_crop(resized, side, side), normalization);
}

at::Tensor dinov2_input(const Image& image, int side) {
  return normalized(resize_as_pillow(to_rgb(image, AlphaRule::kDrop), side, side), kImageNet);
}

}  // namespace mdm
