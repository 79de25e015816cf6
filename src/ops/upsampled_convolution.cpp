#include "ops/upsampled_convolution.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cstring>

#include "ops/onednn.h"

namespace mdm::ops {
namespace {

constexpr int64_t kOne[] = {1, 1};

}  // namespace

// The four 2x2 convolutions are one, padded by 1 on all sides, whose result is (H + 1) x (W + 1): a result at an
// even row i comes from the window that begins a row above, one at an odd row from the window at the row itself.
UpsampledConvolution::UpsampledConvolution(const at::Tensor& weight, const at::Tensor& bias, at::IntArrayRef input_size)
    : out_channels_(weight.size(0)), bias_(bias.detach().repeat({4})) {
  const int64_t in_channels = weight.size(1);
  const at::Tensor exact = weight.detach().to(at::kFloat);
  // Which value of the window a tap falls on: (even, odd) x tap.
  constexpr int kPlace[2][3] = {{0, 1, 1}, {0, 0, 1}};
  at::Tensor sums = at::zeros({4, out_channels_, in_channels, 2, 2}, at::kFloat);
  for (int phase = 0; phase < 4; ++phase) {
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) {
        sums.select(0, phase).select(3, kPlace[phase % 2][j]).select(2, kPlace[phase / 2][i]) +=
            exact.select(3, j).select(2, i);
      }
    }
  }
  packed_ = onednn::pack_convolution(sums.view({4 * out_channels_, in_channels, 2, 2}).to(weight.scalar_type()), kOne,
                                     kOne, input_size);
}

at::Tensor UpsampledConvolution::forward(const at::Tensor& x) const {
  const int64_t batch = x.size(0), height = x.size(2), width = x.size(3);
  const at::Tensor windows =
      onednn::convolution(x, packed_, bias_, kOne, kOne).contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor y =
      at::empty({batch, out_channels_, 2 * height, 2 * width}, windows.options(), at::MemoryFormat::ChannelsLast);
  const auto bytes = static_cast<size_t>(out_channels_ * windows.element_size());
  const auto* from = static_cast<const char*>(windows.const_data_ptr());
  auto* to = static_cast<char*>(y.mutable_data_ptr());
  at::parallel_for(0, batch * 2 * height, 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t image = i / (2 * height), row = i % (2 * height), odd = row % 2;
      const int64_t window_row = image * (height + 1) + row / 2 + odd;
      for (int64_t column = 0; column < 2 * width; ++column) {
        const int64_t window = window_row * (width + 1) + column / 2 + column % 2;
        std::memcpy(to + static_cast<size_t>(i * 2 * width + column) * bytes,
                    from + static_cast<size_t>(4 * window + 2 * odd + column % 2) * bytes, bytes);
      }
    }
  });
  return y;
}

}  // namespace mdm::ops
