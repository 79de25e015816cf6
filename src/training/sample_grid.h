// Pictures that a model in training draws, on one sheet.
#pragma once

#include <atomic>
#include <functional>
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

// Draws the prompts with these numbers (in setup.prompts, again and again where there are fewer), each with the seed of
// its number, in batches, in the same way. `take` gets the pictures numbers[first], numbers[first + 1], ... False when
// `stop` has become true. All processes call it, each with numbers of its own.
bool draw_pictures(const Config& config, const GridSetup& setup, const std::vector<size_t>& numbers, UNet& model,
                   ParameterArena& arena, TextEncoder* encoder,
                   const std::function<void(size_t first, const std::vector<Image>& pictures,
                                            const std::vector<std::string>& prompts)>& take);

}  // namespace mdm
