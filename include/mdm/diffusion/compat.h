// Where libmdm differs from the reference on purpose, and how the golden runner gets the reference's way.
#pragma once

#include <cstdint>

namespace mdm {

/// Only the golden runner sets any of these.
struct Compat {
  /// More sampling steps than the schedule has give repeated timesteps instead of being clamped
  /// (ml_mdm/samplers.py: set_timesteps).
  bool unclamped_steps = false;
  /// A plain model with rescale_signal: the targets come from the images as they are, although x_t holds
  /// the rescaled ones (ml_mdm/diffusion.py: Diffusion.get_loss).
  bool unscaled_targets = false;
  /// Noise is asked for as often as the reference draws it, though it may be multiplied by 0: a nested
  /// model's last step, repeated timesteps (ml_mdm/samplers.py: get_xt_minus_1).
  bool reference_draws = false;
  /// Bytes are cut off instead of rounded (ml_mdm/clis/generate_batch.py).
  bool truncated_pixels = false;
  /// A pipeline draws its noise for a whole batch from torch's CPU generator, seeded with the first
  /// picture's seed (ml_mdm/diffusion.py: get_noise; samplers.py).
  /// In training: times and noise of all levels from such a generator, seeded with the run's seed, batch after
  /// batch (ml_mdm/diffusion.py: get_loss).
  bool torch_noise = false;
  /// The learning rate rises one update later (ml_mdm/lr_scaler.py).
  bool reference_lr = false;
  /// In so many first updates the averaged weights become the weights (ml_mdm/models/model_ema.py: warmup_steps).
  int64_t ema_copies = 0;
};

}  // namespace mdm
