// Random tensors from addressed random numbers.
#include "mdm/diffusion/noise.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/random.h"
#if MDM_HAS_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "core/random_cuda.h"
#endif

namespace mdm {
namespace {

/// (addresses, shape of one example...) of normal numbers, each example with an address of its own.
template <typename AddressOf>
at::Tensor normal_batch(at::IntArrayRef shape, at::Device device, const AddressOf& address_of) {
#if MDM_HAS_CUDA
  const at::Device made_on = device.is_cuda() ? device : at::Device(at::kCPU);
#else
  const at::Device made_on = at::kCPU;
#endif
  at::Tensor out = at::empty(shape, at::TensorOptions().dtype(at::kFloat).device(made_on));
  const int64_t batch = shape[0], count = out.numel() / std::max<int64_t>(batch, 1);
  auto* data = static_cast<float*>(out.mutable_data_ptr());
#if MDM_HAS_CUDA
  if (device.is_cuda()) {
    const c10::cuda::CUDAGuard guard(device);
    for (int64_t i = 0; i < batch; ++i) {
      detail::random_normal_cuda(address_of(static_cast<size_t>(i)), 0, data + i * count, static_cast<size_t>(count),
                                 c10::cuda::getCurrentCUDAStream());
    }
    return out;
  }
#endif
  at::parallel_for(0, batch, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      random_normal(address_of(static_cast<size_t>(i)), 0, data + i * count, static_cast<size_t>(count));
    }
  });
  return out.to(device);
}

}  // namespace

SeededNoise::SeededNoise(std::vector<uint64_t> seeds, at::Device device) : seeds_(std::move(seeds)), device_(device) {
  // Pinned memory, so that the copy to a GPU does not wait for the work queued there.
  const at::Tensor bits = at::empty({static_cast<int64_t>(seeds_.size())},
                                    at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda()));
  std::copy(seeds_.begin(), seeds_.end(), static_cast<uint64_t*>(bits.mutable_data_ptr()));
  seeds_there_ = bits.to(device, /*non_blocking=*/true);
}

at::Tensor SeededNoise::start(size_t level, at::IntArrayRef shape) {
  if (shape.empty() || shape[0] != static_cast<int64_t>(seeds_.size())) {
    fail("there are ", seeds_.size(), " seeds for a batch of ", shape.empty() ? 0 : shape[0], " images");
  }
  return normal_batch(shape, device_, [&](size_t i) {
    RandomAddress address;
    address.seed = seeds_[i];
    address.stream = RandomStream::kNoise;
    address.layer = static_cast<uint32_t>(level);
    return address;
  });
}

at::Tensor SeededNoise::step(int64_t step, size_t level, at::IntArrayRef shape) {
  if (shape.empty() || shape[0] != static_cast<int64_t>(seeds_.size())) {
    fail("there are ", seeds_.size(), " seeds for a batch of ", shape.empty() ? 0 : shape[0], " images");
  }
  return normal_batch(shape, device_, [&](size_t i) {
    RandomAddress address;
    address.seed = seeds_[i];
    address.step = static_cast<uint64_t>(step);
    address.stream = RandomStream::kStep;
    address.layer = static_cast<uint32_t>(level);
    return address;
  });
}

GeneratorNoise::GeneratorNoise(at::Generator generator, at::Device device)
    : generator_(std::move(generator)), device_(device) {}

at::Tensor GeneratorNoise::draw(at::IntArrayRef shape) {
  return at::randn(shape, generator_, at::TensorOptions().dtype(at::kFloat)).to(device_);
}
at::Tensor GeneratorNoise::start(size_t, at::IntArrayRef shape) { return draw(shape); }
at::Tensor GeneratorNoise::step(int64_t, size_t, at::IntArrayRef shape) { return draw(shape); }

at::Tensor draw_times(const TrainingDraw& draw, const std::vector<uint64_t>& samples, int64_t num_diffusion_steps,
                      at::Device device) {
  if (num_diffusion_steps < 1) fail("times can't be drawn from ", num_diffusion_steps, " diffusion steps");
  at::Tensor out = at::empty({static_cast<int64_t>(samples.size())},
                             at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda()));
  auto* data = static_cast<int64_t*>(out.mutable_data_ptr());
  for (size_t i = 0; i < samples.size(); ++i) {
    const RandomAddress address{draw.seed, draw.attempt, draw.step, samples[i], RandomStream::kTime, 0};
    data[i] = static_cast<int64_t>(random_below(address, 0, static_cast<uint64_t>(num_diffusion_steps)));
  }
  return out.to(device, /*non_blocking=*/true);
}

at::Tensor draw_noise(const TrainingDraw& draw, const std::vector<uint64_t>& samples, size_t level,
                      at::IntArrayRef shape, at::Device device) {
  std::vector<int64_t> full = {static_cast<int64_t>(samples.size())};
  full.insert(full.end(), shape.begin(), shape.end());
  return normal_batch(full, device, [&](size_t i) {
    return RandomAddress{draw.seed,  draw.attempt,         draw.step,
                         samples[i], RandomStream::kNoise, static_cast<uint32_t>(level)};
  });
}

}  // namespace mdm
