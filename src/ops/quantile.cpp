#include "mdm/ops/quantile.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/quantile.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "mdm/core/error.h"
#include "ops/quantile_rank.h"
#if MDM_HAS_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/quantile_cuda.h"
#endif

namespace mdm::ops {
namespace {

float value_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Without their sign the bits of floats are in the order of their values, and NaNs come last. `bits` is for scratch.
float row_quantile(const float* row, int64_t count, const QuantileRank& rank, std::vector<uint32_t>& bits) {
  std::memcpy(bits.data(), row, bits.size() * sizeof(uint32_t));
  uint32_t largest = 0;
  for (uint32_t& b : bits) largest = std::max(largest, b &= 0x7fffffffU);
  if (std::isnan(value_of(largest))) return std::numeric_limits<float>::quiet_NaN();
  std::nth_element(bits.begin(), bits.begin() + rank.below, bits.end());
  const float low = value_of(bits[static_cast<size_t>(rank.below)]);
  const bool has_next = rank.below + 1 < count;
  const float high = has_next ? value_of(*std::min_element(bits.begin() + rank.below + 1, bits.end())) : low;
  return low + rank.weight * (high - low);
}

}  // namespace

at::Tensor abs_quantile_composition(const at::Tensor& x, float q) {
  return at::quantile(x.reshape({x.size(0), -1}).abs(), q, 1);
}

at::Tensor abs_quantile(const at::Tensor& x, float q) {
  if (x.dim() < 2 || x.scalar_type() != at::kFloat || (x.size(0) > 0 && x.numel() == 0)) {
    fail("abs_quantile: ", x.sizes(), " are no rows of float32 numbers");
  }
  const at::Tensor values = x.contiguous();
  at::Tensor out = at::empty({x.size(0)}, x.options().memory_format(at::MemoryFormat::Contiguous));
  const int64_t batch = x.size(0), count = batch > 0 ? x.numel() / batch : 0;
  if (batch == 0) return out;
  const QuantileRank rank(q, count);
#if MDM_HAS_CUDA
  if (x.is_cuda()) {
    const c10::cuda::CUDAGuard guard(x.device());
    const at::Tensor work = at::empty({abs_quantile_cuda_workspace(batch)}, out.options().dtype(at::kInt));
    abs_quantile_cuda(values.const_data_ptr<float>(), batch, count, rank, out.mutable_data_ptr<float>(),
                      reinterpret_cast<uint32_t*>(work.mutable_data_ptr<int32_t>()), c10::cuda::getCurrentCUDAStream());
    return out;
  }
#endif
  if (!x.is_cpu()) return abs_quantile_composition(values, q);
  const auto* in = values.const_data_ptr<float>();
  auto* result = out.mutable_data_ptr<float>();
  at::parallel_for(0, batch, 1, [&](int64_t first, int64_t last) {
    std::vector<uint32_t> bits(static_cast<size_t>(count));
    for (int64_t i = first; i < last; ++i) result[i] = row_quantile(in + i * count, count, rank, bits);
  });
  return out;
}

}  // namespace mdm::ops
