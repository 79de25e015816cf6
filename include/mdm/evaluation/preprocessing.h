// From a picture to what each network takes, exactly as those who published its numbers did: a score moves more with
// the way a picture is resized than with many a change to a model (Parmar et al. 2022, arXiv 2104.11222).
//
// All begin with RGB as Pillow's convert("RGB") makes it: gray repeated, alpha dropped.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "mdm/media/image.h"

namespace mdm {

/// How pictures become 299 x 299 for Inception-v3.
enum class InceptionResize {
  kTensorFlow,  ///< torch-fidelity, torchmetrics: TensorFlow 1's bilinear: corner to corner, no antialiasing
  kPytorchFid,  ///< pytorch-fid: bilinear between pixel centres, no antialiasing
  kClean,       ///< clean-fid: Pillow's bicubic with antialiasing, on floats
};
/// "tf1", "pytorch-fid", "clean"; ConfigError for others.
InceptionResize parse_inception_resize(const std::string& name);
const char* inception_resize_name(InceptionResize resize);

/// (3, 299, 299) float for InceptionV3. kTensorFlow, kClean: (v - 128) / 128; kPytorchFid: 2 v / 255 - 1.
at::Tensor inception_input(const Image& image, InceptionResize resize);

/// Pillow's Image.resize with BICUBIC to 8-bit samples, bit for bit as Pillow 13: filter weights of 22 fractional bits,
/// 8 bits between the two passes. The first one goes across, but down where more than twice as many rows as columns go
/// (earlier versions always go across first; a sample then differs by 1 now and then).
Image resize_as_pillow(const Image& image, int width, int height);

/// CLIP's: the smaller side to `side` (the larger one cut to whole pixels) by resize_as_pillow, the middle square (the
/// odd pixel stays on the right and at the bottom), v / 255, minus mean, by deviation. (3, side, side) float.
struct Normalization {
  float mean[3];
  float deviation[3];
};
at::Tensor clip_input(const Image& image, int side, const Normalization& normalization);

/// DINOv2's as in dgm-eval (Stein et al. 2023, arXiv 2306.04675) and EDM2: the whole picture to side x side by
/// resize_as_pillow, whatever its shape, v / 255, ImageNet's mean and deviation. (3, side, side) float.
at::Tensor dinov2_input(const Image& image, int side);

}  // namespace mdm
