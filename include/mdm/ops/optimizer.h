// The optimizer step over flat buffers, as one operation, and the norm that clipping needs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mdm::ops {

/// Slices of flat buffers that belong together, all (N), contiguous, on one device; see training/parameter_arena.h.
/// Everything is elementwise, so any part of them (narrow()) can be stepped on its own.
struct OptimizerBuffers {
  at::Tensor weights;     ///< float32, updated
  at::Tensor gradients;   ///< float32, read
  at::Tensor exp_avg;     ///< float32, updated
  at::Tensor exp_avg_sq;  ///< float32, updated
  at::Tensor ema;         ///< float32, updated; undefined: none
  at::Tensor compute;     ///< bfloat16, becomes the rounded weights; undefined: none

  OptimizerBuffers narrow(int64_t first, int64_t count) const;
};

struct AdamSettings {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;     ///< decoupled (AdamW, arXiv 1711.05101); 0 is Adam (arXiv 1412.6980)
  int64_t update = 1;          ///< updates made, this one included: of the bias corrections
  double gradient_factor = 1;  ///< gradients are multiplied by this: 1 / weight of the loss, times the clip factor
  double ema_decay = 0;        ///< ema = ema + (1 - ema_decay) (weights - ema), after the update
};

/// One pass over memory: g = gradient_factor gradients; exp_avg += (1 - beta1) (g - exp_avg);
/// exp_avg_sq = beta2 exp_avg_sq + (1 - beta2) g^2; weights = weights (1 - lr weight_decay)
/// - lr / (1 - beta1^update) exp_avg / (sqrt(exp_avg_sq / (1 - beta2^update)) + eps); then ema and compute.
/// The same bits whatever the number of threads, the vector unit, or how the buffers are cut. Error for
/// buffers that don't fit each other.
void adamw_ema_step(const OptimizerBuffers& buffers, const AdamSettings& settings);

/// Clipping by numbers that lie where the buffers do, (1) float64 each: with norm = sqrt(squares) / weight gradients
/// are multiplied by min(1, clip_norm / (norm + 1e-6)) / weight, as torch.nn.utils.clip_grad_norm_ does.
struct DeviceClip {
  at::Tensor squares;  ///< sum of the squares of all gradients as they are
  at::Tensor loss;     ///< sum over what `weight` counts
  at::Tensor weight;   ///< what gradients and loss are to be divided by
  double clip_norm = 1;
};

/// The same, with the factor that `clip` gives in the place of settings.gradient_factor. Nothing changes when the loss,
/// the weight or the norm is not finite, or the weight is 0. On a GPU nothing waits for the numbers.
void adamw_ema_step(const OptimizerBuffers& buffers, const AdamSettings& settings, const DeviceClip& clip);

/// The definition of adamw_ema_step as ATen calls: its oracle in tests, and what runs where there is no kernel.
void adamw_ema_step_composition(const OptimizerBuffers& buffers, const AdamSettings& settings);

/// Sum of the squares of a flat float32 tensor: in float64, in blocks of fixed size that are added in order,
/// so that it does not depend on the number of threads. Not finite when an element isn't (or its square
/// is not, beyond float64).
double sum_of_squares(const at::Tensor& values);

/// The same as (1) float64 where the values lie; on a GPU nothing waits for it.
at::Tensor sum_of_squares_tensor(const at::Tensor& values);

}  // namespace mdm::ops
