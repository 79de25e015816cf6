// Pictures that a model in training draws, on one sheet.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "mdm/config/config.h"
#include "mdm/media/image.h"
#include "mdm/models/unet.h"
#include "mdm/text/text_encoder.h"
#include "mdm/training/parameter_arena.h"

namespace mdm {

// What sample grids show: fixed prompts with fixed seeds, so that sheets can be compared over time.
struct GridSetup {
  std::vector<std::string> prompts;
  int64_t side = 0;  // of the pictures, in pixels
  at::Device device = at::kCPU;
  const std::atomic<bool>* stop = nullptr;  // looked at before each step of sampling
  bool draws = true;                        // or only helps: a divided arena is put together by all processes
};

// Drawn with the averaged weights; the model trains on as if nothing had been. Inner levels are left out.
// Nothing when `stop` has become true. All processes call it, one draws.
std::optional<Image> draw_grid(const Config& config, const GridSetup& setup, UNet& model, ParameterArena& arena,
                               TextEncoder* encoder);

}  // namespace mdm
