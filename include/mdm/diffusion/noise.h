// Where the random tensors of sampling and training come from: numbers with an address (core/random.h),
// so that the noise of an image or sample is the same whatever batch, process or machine it is made in.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mdm {

/// Normal noise for a batch of images that are sampled.
class NoiseSource {
 public:
  virtual ~NoiseSource() = default;
  /// The noise that a run starts from, for a level (0 = highest resolution); shape (B, C, H, W).
  /// Asked for once per level, high to low.
  virtual at::Tensor start(size_t level, at::IntArrayRef shape) = 0;
  /// The noise that step `step` (of the full list of steps) adds; asked for high to low.
  virtual at::Tensor step(int64_t step, size_t level, at::IntArrayRef shape) = 0;
  /// (B) int64 where the noise is, when step() gives what ops::StepNoise says of these seeds: the operation that needs
  /// the numbers can then make them. Undefined: only step() knows.
  virtual at::Tensor step_seeds() const { return {}; }
};

/// Image i has the seed seeds[i]; streams kNoise (start) and kStep, the level being the layer. Numbers are
/// made where they are wanted, and are the same on every device.
class SeededNoise final : public NoiseSource {
 public:
  explicit SeededNoise(std::vector<uint64_t> seeds, at::Device device = at::kCPU);
  at::Tensor start(size_t level, at::IntArrayRef shape) override;
  at::Tensor step(int64_t step, size_t level, at::IntArrayRef shape) override;
  at::Tensor step_seeds() const override { return seeds_there_; }

 private:
  std::vector<uint64_t> seeds_;
  at::Device device_;
  at::Tensor seeds_there_;
};

/// Compat: torch's generator, drawn from in the order in which the sampler asks, as the reference does.
class GeneratorNoise : public NoiseSource {
 public:
  explicit GeneratorNoise(at::Generator generator, at::Device device = at::kCPU);
  at::Tensor start(size_t level, at::IntArrayRef shape) override;
  at::Tensor step(int64_t step, size_t level, at::IntArrayRef shape) override;

 private:
  at::Tensor draw(at::IntArrayRef shape);
  at::Generator generator_;
  at::Device device_;
};

/// The address of one training step's random numbers.
struct TrainingDraw {
  uint64_t seed = 0;
  uint32_t attempt = 0;  ///< raised by a rollback
  uint64_t step = 0;
};

/// (B) int64: a time in [0, num_diffusion_steps) for each of the samples, given by their global numbers.
at::Tensor draw_times(const TrainingDraw& draw, const std::vector<uint64_t>& samples, int64_t num_diffusion_steps,
                      at::Device device = at::kCPU);

/// (B, C, H, W): the noise of a level for each of the samples. `shape`: (C, H, W).
at::Tensor draw_noise(const TrainingDraw& draw, const std::vector<uint64_t>& samples, size_t level,
                      at::IntArrayRef shape, at::Device device = at::kCPU);

}  // namespace mdm
