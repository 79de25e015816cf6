// How well a patch of coverages agrees with the template of a shape, moved and scaled to fit best.
#pragma once

#include <vector>

#include "mdm/demo/shapes.h"

namespace mdm {

/// How much of each pixel an object covers, in a window of the picture.
struct CoverageWindow {
  int left = 0, top = 0;  ///< of the window, in pixels of the picture
  int width = 0, height = 0;
  std::vector<float> values;  ///< (height, width), [0, 1]
};

/// In pixels of the picture.
struct TemplateFit {
  double x = 0, y = 0, radius = 0;
  double iou = 0;  ///< sum(min(window, template)) / sum(max(window, template))
};

/// The place and size at which the template has the window's area and centre of mass.
TemplateFit start_template(const CoverageWindow& window, Shape shape);

/// Moves and scales the template as long as the IoU grows, in steps that shrink from 1/2 to 1/8 pixel.
TemplateFit climb_template(const CoverageWindow& window, Shape shape, TemplateFit from);

}  // namespace mdm
