// The sampling step on the CPU, vectorised and parallel.
#pragma once

#include "ops/sampler_step_math.h"

namespace mdm::ops {

void sampler_step_cpu(const SamplerArguments& level, const SamplerPlan& plan);

}  // namespace mdm::ops
