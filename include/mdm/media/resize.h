// Pictures and planes of floats made smaller or larger, and cut.
#pragma once

#include <vector>

#include "mdm/media/image.h"

namespace mdm {

enum class ResizeFilter { kBilinear, kBicubic };

/// Antialiased: the filter (triangle; cubic with a = -0.5) is stretched by the factor of shrinking, cut at
/// the border and normalised there, as Pillow does; the two passes keep floats between them. Sides at
/// least 1, Error otherwise. Alpha is filtered like the colours.
Image resize(const Image& image, int width, int height, ResizeFilter filter = ResizeFilter::kBicubic);

/// The same for `planes` planes of floats: (planes, height, width) -> (planes, new_height, new_width).
std::vector<float> resize_planes(const float* source, int planes, int height, int width, int new_height, int new_width,
                                 ResizeFilter filter = ResizeFilter::kBicubic);

/// The middle part; where the difference is odd, the upper and left rest is the smaller one. Error when the
/// picture is smaller than the part.
Image center_crop(const Image& image, int width, int height);

/// Scales so that the picture just covers width x height, keeping its shape, and cuts the middle.
Image resize_and_crop(const Image& image, int width, int height, ResizeFilter filter = ResizeFilter::kBicubic);

}  // namespace mdm
