// The settings of a picture as text in its PNG, and back.
#pragma once

#include <string>

#include "mdm/config/config.h"
#include "mdm/media/png.h"
#include "mdm/pipeline.h"

namespace mdm {

// The PNG texts of a picture: readable parameters, and our settings as JSON.
PngText settings_text(const Picture& picture, const SampleConfig& sample, const Config& config,
                      const std::string& checkpoint_name);

// The settings that a PNG of ours carries, as flags; only those about how the picture is made, never
// paths. DataError when the file carries none.
Overrides settings_from_png(const std::filesystem::path& png);

}  // namespace mdm
