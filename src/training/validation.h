// The loss on samples that are kept out of training.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "mdm/config/config.h"
#include "mdm/diffusion/loss.h"
#include "mdm/distributed/process_group.h"
#include "mdm/models/unet.h"
#include "mdm/training/parameter_arena.h"
#include "mdm/training/sources.h"

namespace mdm {

struct ValidationLoss {
  double mean = 0;
  std::array<std::optional<double>, 4> quartiles;  // by time: nearly no noise first; those that had a sample
};

// Of the averaged weights, over `batches` batches from the first one of `data` on. Sample i has a time out of
// quartile i % 4 and noise of its own, the same each time, so that values can be compared. Without VDM weights. The
// processes of `group` take the batches in turn; what goes wrong in one ends it in all. Nothing when `stop` (may be
// null) of one has become true, or no sample could be read.
std::optional<ValidationLoss> validate(const Config& config, int64_t batches, UNet& model, ParameterArena& arena,
                                       BatchSource& data, TextSource* text, at::Device device, ProcessGroup& group,
                                       const std::atomic<bool>* stop = nullptr);

}  // namespace mdm
