#include "mdm/ops/dropout.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include "mdm/core/error.h"

namespace mdm::ops {

at::Tensor dropout(const at::Tensor& x, double p, const DropoutSource& source, uint32_t layer, int64_t rows) {
  const auto known = static_cast<int64_t>(source.samples.size());
  const int64_t samples = rows < 0 ? known : rows;
  if (samples > known) fail("dropout: ", samples, " rows, but ", known, " sample numbers");
  if (samples == 0 || x.size(0) % samples != 0) {
    fail("dropout: ", samples, " sample numbers for ", x.size(0), " rows");
  }
  const int64_t per_sample = x.numel() / samples;
  at::Tensor mask = at::empty(x.sizes(), at::kFloat);
  float* values = mask.data_ptr<float>();
  RandomAddress address = source.address;
  address.stream = RandomStream::kLayerDropout;
  address.layer = layer;
  const auto keep = static_cast<float>(1.0 - p);
  for (int64_t i = 0; i < samples; ++i) {
    address.sample = source.samples[static_cast<size_t>(i)];
    float* row = values + i * per_sample;
    random_uniform(address, 0, row, static_cast<size_t>(per_sample));
    for (int64_t k = 0; k < per_sample; ++k) row[k] = row[k] < keep ? 1.0F / keep : 0.0F;
  }
  return x * mask.to(x.device(), x.scalar_type());
}

}  // namespace mdm::ops
