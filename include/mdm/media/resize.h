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

/// A part of a picture; width 0 = all of it.
struct Part {
  int x = 0;
  int y = 0;
  int width = 0;
  int height = 0;
};

/// Resizing for training, by the rule of the reference's reader (mlx-data: stb_image_resize2 with its triangle filter
/// and clamped edges): like kBilinear above, but what the filter reaches outside of the picture counts for the pixel
/// at the edge. Of the width x height result only `part` is computed, so a crop costs what it shows.
/// Error when sides are below 1 or the part leaves the result.
Image resize_clamped(const Image& image, int width, int height, const Part& part = {});
/// The same from a reduced picture, whose last row and column may stand for less than the others. Colours that are
/// apart are put together: the result has 3 channels then.
Image resize_clamped(const ReducedImage& image, int width, int height, const Part& part = {});

/// The same for `planes` planes of floats: (planes, height, width) -> (planes, new_height, new_width).
std::vector<float> resize_planes(const float* source, int planes, int height, int width, int new_height, int new_width,
                                 ResizeFilter filter = ResizeFilter::kBicubic);

/// The middle part; where the difference is odd, the upper and left rest is the smaller one. Error when the
/// picture is smaller than the part.
Image center_crop(const Image& image, int width, int height);

/// Scales so that the picture just covers width x height, keeping its shape, and cuts the middle.
Image resize_and_crop(const Image& image, int width, int height, ResizeFilter filter = ResizeFilter::kBicubic);

}  // namespace mdm
