// Gradient checkpointing: a stage whose activations are not kept but computed again in the backward pass.
#pragma once

#include "mdm/models/blocks.h"

namespace mdm {

// Stage::forward() with the same results and the same gradients. `in.context` may go before the backward pass
// runs, but its dropout source must stay until then. A probe sees the first pass alone.
at::Tensor forward_recomputed(const Stage& stage, const at::Tensor& x, const StageInputs& in,
                              std::vector<at::Tensor>* kept, std::vector<at::Tensor>* skips);

}  // namespace mdm
