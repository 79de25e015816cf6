// Separable resampling with antialiasing, and cuts.
#include "mdm/media/resize.h"

#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"

namespace mdm {
namespace {

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

// Keys 1981 with a = -0.5.
double cubic(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// For each output: which inputs it is made of, and their weights.
struct Weights {
  struct Span {
    int first;
    int count;
  };
  std::vector<Span> spans;
  std::vector<float> values;  // `stride` for each output
  int stride = 0;
};

Weights weights_for(int size, int new_size, ResizeFilter filter) {
  const double scale = static_cast<double>(size) / new_size;
  const double stretch = std::max(scale, 1.0);
  const double support = (filter == ResizeFilter::kBilinear ? 1.0 : 2.0) * stretch;
  Weights weights;
  weights.stride = static_cast<int>(std::min<double>(std::ceil(support) * 2 + 1, size));
  weights.values.resize(static_cast<size_t>(new_size) * static_cast<size_t>(weights.stride));
  std::vector<double> row(static_cast<size_t>(weights.stride));
  for (int i = 0; i < new_size; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(centre - support + 0.5));
    const int last = std::min(size, static_cast<int>(centre + support + 0.5));
    const int count = std::min(last - first, weights.stride);
    double sum = 0;
    for (int k = 0; k < count; ++k) {
      const double x = (first + k - centre + 0.5) / stretch;
      row[static_cast<size_t>(k)] = filter == ResizeFilter::kBilinear ? triangle(x) : cubic(x);
      sum += row[static_cast<size_t>(k)];
    }
    float* values = weights.values.data() + static_cast<size_t>(i) * static_cast<size_t>(weights.stride);
    for (int k = 0; k < count; ++k) values[k] = static_cast<float>(row[static_cast<size_t>(k)] / sum);
    weights.spans.push_back({first, count});
  }
  return weights;
}

// One row, (width, step) -> (new width, step).
template <typename Sample>
void resize_row(const Weights& weights, const Sample* from, float* to, size_t step) {
  for (size_t x = 0; x < weights.spans.size(); ++x) {
    const auto [first, count] = weights.spans[x];
    const float* values = weights.values.data() + x * static_cast<size_t>(weights.stride);
    for (size_t c = 0; c < step; ++c) {
      const Sample* source = from + static_cast<size_t>(first) * step + c;
      float sum = 0;
      for (int k = 0; k < count; ++k) sum += values[k] * static_cast<float>(source[static_cast<size_t>(k) * step]);
      to[x * step + c] = sum;
    }
  }
}

// (height, width, step) of any sample -> (new height, new width, step) of floats, row by row: the rows that
// the next output row needs are kept, not the whole picture.
template <typename Sample, typename TakeRow>
void resize_plane(const Sample* source, int height, int width, size_t step, int new_height, int new_width,
                  ResizeFilter filter, const TakeRow& take_row) {
  const Weights across = weights_for(width, new_width, filter);
  const Weights down = weights_for(height, new_height, filter);
  const size_t row = static_cast<size_t>(new_width) * step;
  const auto kept = static_cast<size_t>(down.stride);
  std::vector<float> rows(row * kept);  // source row y is at y % kept
  std::vector<float> out(row);
  int done = 0;
  for (int y = 0; y < new_height; ++y) {
    const auto [first, count] = down.spans[static_cast<size_t>(y)];
    for (done = std::max(done, first); done < first + count; ++done) {
      resize_row(across, source + static_cast<size_t>(done) * static_cast<size_t>(width) * step,
                 rows.data() + row * (static_cast<size_t>(done) % kept), step);
    }
    std::fill(out.begin(), out.end(), 0.0f);
    for (int k = 0; k < count; ++k) {
      const float weight = down.values[static_cast<size_t>(y) * kept + static_cast<size_t>(k)];
      const float* from = rows.data() + row * (static_cast<size_t>(first + k) % kept);
      for (size_t i = 0; i < row; ++i) out[i] += weight * from[i];
    }
    take_row(y, out.data());
  }
}

void check_sides(int width, int height, const char* what) {
  if (width < 1 || height < 1) fail<Error>(what, ": ", width, " x ", height, " pixels are not possible");
}

}  // namespace

Image resize(const Image& image, int width, int height, ResizeFilter filter) {
  check_image(image, "resize");
  check_sides(width, height, "resize");
  if (width == image.width && height == image.height) return image;
  Image resized(width, height, image.channels);
  const size_t row = resized.row_bytes();
  resize_plane(image.pixels.data(), image.height, image.width, static_cast<size_t>(image.channels), height, width,
               filter, [&](int y, const float* values) {
                 uint8_t* to = resized.row(y);
                 for (size_t i = 0; i < row; ++i) {
                   to[i] = static_cast<uint8_t>(std::min(std::max(values[i], 0.0f), 255.0f) + 0.5f);
                 }
               });
  return resized;
}

std::vector<float> resize_planes(const float* source, int planes, int height, int width, int new_height, int new_width,
                                 ResizeFilter filter) {
  check_sides(width, height, "resize_planes");
  check_sides(new_width, new_height, "resize_planes");
  const size_t plane = static_cast<size_t>(height) * static_cast<size_t>(width);
  const auto row = static_cast<size_t>(new_width);
  const size_t new_plane = static_cast<size_t>(new_height) * row;
  std::vector<float> resized(static_cast<size_t>(std::max(planes, 0)) * new_plane);
  for (size_t p = 0; p < static_cast<size_t>(std::max(planes, 0)); ++p) {
    resize_plane(source + p * plane, height, width, 1, new_height, new_width, filter, [&](int y, const float* values) {
      std::copy_n(values, row, resized.data() + p * new_plane + static_cast<size_t>(y) * row);
    });
  }
  return resized;
}

Image center_crop(const Image& image, int width, int height) {
  check_image(image, "center_crop");
  check_sides(width, height, "center_crop");
  if (width > image.width || height > image.height) {
    fail<Error>("center_crop: the picture has ", image.width, " x ", image.height, " pixels, fewer than ", width, " x ",
                height);
  }
  Image part(width, height, image.channels);
  const auto left = static_cast<size_t>((image.width - width) / 2);
  const int top = (image.height - height) / 2;
  for (int y = 0; y < height; ++y) {
    std::copy_n(image.row(top + y) + left * static_cast<size_t>(image.channels), part.row_bytes(), part.row(y));
  }
  return part;
}

Image resize_and_crop(const Image& image, int width, int height, ResizeFilter filter) {
  check_image(image, "resize_and_crop");
  check_sides(width, height, "resize_and_crop");
  const double scale = std::max(static_cast<double>(width) / image.width, static_cast<double>(height) / image.height);
  const auto side = [&](int size, int least) {
    return std::max(least, static_cast<int>(std::lround(std::min(size * scale, 2e9))));
  };
  // A long strip would be scaled to something huge of which the middle is kept: cut first what is cut anyway.
  const int kept_width = std::min(image.width, static_cast<int>(std::ceil(width / scale)) + 2);
  const int kept_height = std::min(image.height, static_cast<int>(std::ceil(height / scale)) + 2);
  if (kept_width < image.width / 8 || kept_height < image.height / 8) {
    return resize_and_crop(center_crop(image, kept_width, kept_height), width, height, filter);
  }
  return center_crop(resize(image, side(image.width, width), side(image.height, height), filter), width, height);
}

}  // namespace mdm
