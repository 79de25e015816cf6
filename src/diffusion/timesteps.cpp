// Which of the N diffusion steps sampling visits.
#include <algorithm>
#include <cmath>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/diffusion/schedule.h"

namespace mdm {

std::vector<int64_t> make_timesteps(int64_t steps, int64_t inference_steps, TimestepSpacing spacing,
                                    const Compat& compat) {
  if (steps < 1) fail<ConfigError>("num_diffusion_steps is ", steps, ", allowed are numbers from 1 on");
  if (inference_steps < 1) {
    fail<ConfigError>("num_inference_steps is ", inference_steps, ", allowed are numbers from 1 to ", steps);
  }
  const bool unclamped = compat.unclamped_steps && spacing == TimestepSpacing::kReference;
  if (inference_steps > steps && !unclamped) {
    log_warning("num_inference_steps is ", inference_steps, ", but the model was trained with ", steps,
                " diffusion steps; ", steps, " are used");
    inference_steps = steps;
  }
  const auto n = static_cast<double>(steps), count = static_cast<double>(inference_steps);
  const auto rounded = [](double x) { return static_cast<int64_t>(std::nearbyint(x)); };  // half to even
  std::vector<int64_t> out;
  for (int64_t k = inference_steps; k >= 1; --k) {
    const auto rank = static_cast<double>(k);
    switch (spacing) {
      case TimestepSpacing::kReference: out.push_back(rounded(rank * ((n + 1) / (count + 1)))); break;
      case TimestepSpacing::kLeading: out.push_back(1 + (k - 1) * (steps / inference_steps)); break;
      case TimestepSpacing::kTrailing: out.push_back(rounded(rank * n / count)); break;
      case TimestepSpacing::kLinspace:
        out.push_back(inference_steps == 1 ? steps : rounded(1 + (rank - 1) * (n - 1) / (count - 1)));
        break;
    }
  }
  out.push_back(0);
  return out;
}

int64_t first_step_from(const std::vector<int64_t>& timesteps, int64_t t) {
  const auto found = std::find_if(timesteps.begin(), timesteps.end(), [t](int64_t step) { return step <= t; });
  if (found == timesteps.end() || found + 1 == timesteps.end()) {
    fail<ConfigError>("no step is left at or below t = ", t, "; the lowest one is ",
                      timesteps.size() < 2 ? int64_t{0} : timesteps[timesteps.size() - 2]);
  }
  return found - timesteps.begin();
}

int64_t first_step_for_strength(const std::vector<int64_t>& timesteps, double strength) {
  if (!(strength >= 0 && strength <= 1)) {
    fail<ConfigError>("strength is ", strength, ", allowed are numbers from 0 to 1");
  }
  const auto count = static_cast<int64_t>(timesteps.size()) - 1;
  const auto run = static_cast<int64_t>(std::lround(strength * static_cast<double>(count)));
  return count - (strength > 0 ? std::max<int64_t>(run, 1) : 0);
}

}  // namespace mdm
