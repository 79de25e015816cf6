// Many pictures on one sheet.
#pragma once

#include <cstdint>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

struct GridOptions {
  int columns = 0;  ///< 0: as many as make the grid about square
  int padding = 2;  ///< pixels between the pictures and around them
  uint8_t background = 0;
};

/// The pictures row by row; smaller ones stand in the middle of their cell, and all get as many channels as
/// the richest has (at least 3 when they differ). Error when there are none, or the sheet had more than
/// 2^28 pixels.
Image make_grid(const std::vector<Image>& images, const GridOptions& options = {});

}  // namespace mdm
