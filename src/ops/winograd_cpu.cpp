// Tiles of 2x2 results. Per dimension four inputs d give the transforms d0 - d2, d1 + d2, d2 - d1, d1 - d3;
// each is multiplied by its own transform of the filter, g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2;
// the products m give the results m0 + m1 + m2 and m1 - m2 - m3. In two dimensions that makes 16 products of
// matrices (tiles, I) x (I, O).
// After upsampling d1 = d2, so that the third product vanishes: with the original positions a, b, c there are
// a - b, b, b - c, the filters g0, g0 + g1 + g2, g2, and the results m0 + m1, m1 - m2: 9 products.
#include "ops/winograd_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>

#include "ops/onednn.h"
#include "ops/vector_math.h"

namespace mdm::ops {
namespace {

using vector::kLanes;
using vector::Lanes;

// Rows of a block that the transforms of its tiles fill, in bytes: it should stay in the caches.
constexpr int64_t kBlockBytes = 8 << 20;
constexpr int64_t kLeastTiles = 128, kMostTiles = 2048;
// Parts of a block's buffer are kept this many floats apart, so that they don't compete for the same sets
// of the caches.
constexpr int64_t kGap = 80;

// Where the tiles of a batch of images lie.
struct Grid {
  int64_t batch, height, width;  // of the input
  int64_t rows, columns;         // tiles of an image
  int64_t tiles() const { return batch * rows * columns; }
};

template <bool kUpsampled>
constexpr int frequencies() {
  return kUpsampled ? 3 : 4;
}

template <bool kUpsampled>
inline MDM_INLINED void transform_input(const Lanes* d, Lanes* v, int step) {
  if (kUpsampled) {
    v[0] = d[0] - d[step];
    v[step] = d[step];
    v[2 * step] = d[step] - d[2 * step];
  } else {
    v[0] = d[0] - d[2 * step];
    v[step] = d[step] + d[2 * step];
    v[2 * step] = d[2 * step] - d[step];
    v[3 * step] = d[step] - d[3 * step];
  }
}

template <bool kUpsampled>
inline MDM_INLINED void transform_output(const Lanes* m, Lanes* y, int from_step, int to_step) {
  if (kUpsampled) {
    y[0] = m[0] + m[from_step];
    y[to_step] = m[from_step] - m[2 * from_step];
  } else {
    y[0] = m[0] + m[from_step] + m[2 * from_step];
    y[to_step] = m[from_step] - m[2 * from_step] - m[3 * from_step];
  }
}

// Tiles [first, last): their transforms go to out + frequency * stride + (tile - origin) * channels.
template <bool kUpsampled>
inline MDM_INLINED void input_tiles(const float* x, const float* zeros, const Grid& grid, int64_t channels,
                                    int64_t first, int64_t last, int64_t origin, float* out, int64_t stride) {
  constexpr int kSide = frequencies<kUpsampled>();
  constexpr int64_t kStep = kUpsampled ? 1 : 2;
  const float* source[kSide * kSide];
  for (int64_t tile = first; tile < last; ++tile) {
    const int64_t image = tile / (grid.rows * grid.columns), place = tile % (grid.rows * grid.columns);
    const int64_t top = place / grid.columns * kStep - 1, left = place % grid.columns * kStep - 1;
    for (int i = 0; i < kSide; ++i) {
      for (int j = 0; j < kSide; ++j) {
        const int64_t row = top + i, column = left + j;
        const bool inside = row >= 0 && row < grid.height && column >= 0 && column < grid.width;
        source[i * kSide + j] = inside ? x + ((image * grid.height + row) * grid.width + column) * channels : zeros;
      }
    }
    float* target = out + (tile - origin) * channels;
    for (int64_t c = 0; c < channels; c += kLanes) {
      Lanes d[kSide * kSide], half[kSide * kSide], v[kSide * kSide];
      for (int k = 0; k < kSide * kSide; ++k) d[k] = *reinterpret_cast<const Lanes*>(source[k] + c);
      for (int j = 0; j < kSide; ++j) transform_input<kUpsampled>(d + j, half + j, kSide);
      for (int i = 0; i < kSide; ++i) transform_input<kUpsampled>(half + i * kSide, v + i * kSide, 1);
      for (int k = 0; k < kSide * kSide; ++k) *reinterpret_cast<Lanes*>(target + k * stride + c) = v[k];
    }
  }
}

// Tiles [first, last): products[frequency] + (tile - origin) * channels -> y (B, 2 rows, 2 columns, O), cut
// where the image is odd.
template <bool kUpsampled>
inline MDM_INLINED void output_tiles(const float* const* products, const float* bias, const float* added,
                                     const Grid& grid, int64_t channels, int64_t first, int64_t last, int64_t origin,
                                     float* y) {
  constexpr int kSide = frequencies<kUpsampled>();
  const int64_t height = kUpsampled ? 2 * grid.height : grid.height;
  const int64_t width = kUpsampled ? 2 * grid.width : grid.width;
  for (int64_t tile = first; tile < last; ++tile) {
    const int64_t image = tile / (grid.rows * grid.columns), place = tile % (grid.rows * grid.columns);
    const int64_t top = place / grid.columns * 2, left = place % grid.columns * 2;
    const bool whole_row = left + 1 < width, whole_column = top + 1 < height;
    float* target = y + ((image * height + top) * width + left) * channels;
    const int64_t from = (tile - origin) * channels;
    for (int64_t c = 0; c < channels; c += kLanes) {
      Lanes m[kSide * kSide], half[2 * kSide], r[4];
      for (int k = 0; k < kSide * kSide; ++k) m[k] = *reinterpret_cast<const Lanes*>(products[k] + from + c);
      for (int j = 0; j < kSide; ++j) transform_output<kUpsampled>(m + j, half + j, kSide, kSide);
      for (int i = 0; i < 2; ++i) transform_output<kUpsampled>(half + i * kSide, r + 2 * i, 1, 1);
      const Lanes b = *reinterpret_cast<const Lanes*>(bias + c);
      const auto put = [&](int64_t at, const Lanes& value) {
        Lanes sum = value + b;
        if (added != nullptr) sum += *reinterpret_cast<const Lanes*>(added + (target - y) + at);
        *reinterpret_cast<Lanes*>(target + at) = sum;
      };
      put(c, r[0]);
      if (whole_row) put(c + channels, r[1]);
      if (whole_column) put(c + width * channels, r[2]);
      if (whole_row && whole_column) put(c + (width + 1) * channels, r[3]);
    }
  }
}

void plain_input(const float* x, const float* zeros, const Grid& grid, int64_t channels, int64_t first, int64_t last,
                 int64_t origin, float* out, int64_t stride) {
  with_vectors([&]() MDM_INLINED { input_tiles<false>(x, zeros, grid, channels, first, last, origin, out, stride); });
}
void upsampled_input(const float* x, const float* zeros, const Grid& grid, int64_t channels, int64_t first,
                     int64_t last, int64_t origin, float* out, int64_t stride) {
  with_vectors([&]() MDM_INLINED { input_tiles<true>(x, zeros, grid, channels, first, last, origin, out, stride); });
}
void plain_output(const float* const* products, const float* bias, const float* added, const Grid& grid,
                  int64_t channels, int64_t first, int64_t last, int64_t origin, float* y) {
  with_vectors([&]()
                   MDM_INLINED { output_tiles<false>(products, bias, added, grid, channels, first, last, origin, y); });
}
void upsampled_output(const float* const* products, const float* bias, const float* added, const Grid& grid,
                      int64_t channels, int64_t first, int64_t last, int64_t origin, float* y) {
  with_vectors([&]()
                   MDM_INLINED { output_tiles<true>(products, bias, added, grid, channels, first, last, origin, y); });
}

Grid grid_of(at::IntArrayRef size, bool upsampled) {
  const int64_t step = upsampled ? 1 : 2;
  return {size[0], size[2], size[3], (size[2] + step - 1) / step, (size[3] + step - 1) / step};
}

// Tiles of a block: all blocks of an image batch are about equally large.
int64_t block_tiles(const Grid& grid, int64_t channels, int64_t products) {
  const int64_t fitting = kBlockBytes / (products * channels * static_cast<int64_t>(sizeof(float)));
  const int64_t most = std::clamp(fitting, kLeastTiles, kMostTiles);
  const int64_t blocks = (grid.tiles() + most - 1) / most;
  return (grid.tiles() + blocks - 1) / blocks;
}

// One dimension of the weights' transform.
template <bool kUpsampled>
inline std::array<double, kUpsampled ? 3 : 4> spread(double a, double b, double c) {
  if constexpr (kUpsampled) {
    return {a, a + b + c, c};
  } else {
    return {a, 0.5 * (a + b + c), 0.5 * (a - b + c), c};
  }
}

// (products, O, I) from (O, I, 3, 3), in float64 and in one pass: a model's start is mostly this and packing.
template <bool kUpsampled>
at::Tensor transformed(const at::Tensor& weight) {
  constexpr size_t kSide = kUpsampled ? 3 : 4;
  const int64_t rows = weight.size(0), columns = weight.size(1), count = rows * columns;
  const int64_t down = weight.stride(2), across = weight.stride(3);
  at::Tensor out = at::empty({static_cast<int64_t>(kSide * kSide), rows, columns}, at::kFloat);
  const auto* from = weight.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t i = 0; i < columns; ++i) {
        const float* w = from + o * weight.stride(0) + i * weight.stride(1);
        std::array<std::array<double, kSide>, 3> half;  // down its columns
        for (int64_t j = 0; j < 3; ++j) {
          const float* tap = w + j * across;
          half[static_cast<size_t>(j)] = spread<kUpsampled>(tap[0], tap[down], tap[2 * down]);
        }
        float* place = to + o * columns + i;
        for (size_t r = 0; r < kSide; ++r) {
          for (const double value : spread<kUpsampled>(half[0][r], half[1][r], half[2][r])) {
            *place = static_cast<float>(value);
            place += count;
          }
        }
      }
    }
  });
  return out;
}

}  // namespace

bool WinogradConvolution::suits(const at::Tensor& weight, at::IntArrayRef input_size, bool upsampled) {
  constexpr int64_t kLeastChannels = 64, kLeastPositions = 256;
  const int64_t channels[] = {weight.size(0), weight.size(1)};
  const bool enough = std::all_of(std::begin(channels), std::end(channels),
                                  [](int64_t n) { return n >= kLeastChannels && n % kLanes == 0; });
  return enough && weight.is_cpu() && weight.scalar_type() == at::kFloat && weight.size(2) == 3 &&
         (upsampled || input_size[0] * input_size[2] * input_size[3] >= kLeastPositions);
}

WinogradConvolution::WinogradConvolution(const at::Tensor& weight, at::IntArrayRef input_size, bool upsampled)
    : in_channels_(weight.size(1)), out_channels_(weight.size(0)), upsampled_(upsampled) {
  const at::Tensor products = upsampled ? transformed<true>(weight) : transformed<false>(weight);
  const int64_t tiles =
      block_tiles(grid_of(input_size, upsampled), std::max(in_channels_, out_channels_), products.size(0));
  for (const at::Tensor& product : products.unbind(0)) weights_.push_back(onednn::pack_linear(product, tiles));
}

at::Tensor WinogradConvolution::forward(const at::Tensor& input, const at::Tensor& bias,
                                        const at::Tensor& added) const {
  const at::Tensor x = input.contiguous(at::MemoryFormat::ChannelsLast);
  const Grid grid = grid_of(x.sizes(), upsampled_);
  const int64_t scale = upsampled_ ? 2 : 1;
  at::Tensor y = at::empty({grid.batch, out_channels_, scale * grid.height, scale * grid.width}, x.options(),
                           at::MemoryFormat::ChannelsLast);
  const auto count = static_cast<int64_t>(weights_.size());
  const int64_t tiles = block_tiles(grid, std::max(in_channels_, out_channels_), count);
  const int64_t stride = tiles * in_channels_ + kGap;
  const at::Tensor transforms = at::empty({count * stride}, x.options());
  const at::Tensor zeros = at::zeros({in_channels_}, x.options());
  const at::Tensor other = added.defined() ? added.contiguous(at::MemoryFormat::ChannelsLast) : added;
  const float* sum = added.defined() ? other.const_data_ptr<float>() : nullptr;
  const auto to_transforms = upsampled_ ? upsampled_input : plain_input;
  const auto to_results = upsampled_ ? upsampled_output : plain_output;
  for (int64_t first = 0; first < grid.tiles(); first += tiles) {
    const int64_t here = std::min(tiles, grid.tiles() - first);
    at::parallel_for(first, first + here, 8, [&](int64_t begin, int64_t end) {
      to_transforms(x.const_data_ptr<float>(), zeros.const_data_ptr<float>(), grid, in_channels_, begin, end, first,
                    transforms.mutable_data_ptr<float>(), stride);
    });
    std::vector<at::Tensor> products;
    std::vector<const float*> values;
    for (int64_t k = 0; k < count; ++k) {
      const at::Tensor part = transforms.narrow(0, k * stride, here * in_channels_).view({here, in_channels_});
      products.push_back(onednn::linear(part, weights_[static_cast<size_t>(k)]));
      values.push_back(products.back().const_data_ptr<float>());
    }
    at::parallel_for(first, first + here, 8, [&](int64_t begin, int64_t end) {
      to_results(values.data(), bias.const_data_ptr<float>(), sum, grid, out_channels_, begin, end, first,
                 y.mutable_data_ptr<float>());
    });
  }
  return y;
}

}  // namespace mdm::ops
