// Pictures from files: JPEG, PNG, WebP, BMP, TGA, PNM. The bytes tell the format, never the name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "mdm/media/image.h"

namespace mdm {

enum class ImageFormat { kUnknown, kJpeg, kPng, kWebp, kBmp, kTga, kPnm };

struct DecodeOptions {
  /// Larger pictures are refused before anything is allocated (default: 33.5 million, above 8K video).
  uint64_t max_pixels = uint64_t{1} << 25;
  /// Turns a JPEG as its EXIF data say. The reference ignores them.
  bool apply_exif_orientation = true;
  /// As mlx-data 0.1.0, the reference's reader, decodes: gray JPEGs with 3 channels, of CMYK the first three inks taken
  /// for colours, alpha dropped behind colours, EXIF ignored; damaged scans of JPEGs and wrong checksums of PNGs pass.
  bool as_mlx = false;
};

/// By the first bytes (for TGA, which has no mark, by the plausibility of its header).
ImageFormat image_format(const uint8_t* data, size_t size);

/// "JPEG", "PNG", ...; "unknown".
const char* image_format_name(ImageFormat format);

/// Sides of a picture in pixels, turned upright as its EXIF data say.
struct ImageSize {
  int64_t width = 0;
  int64_t height = 0;
};

/// What the header says, from the first `size` bytes of a file; nothing is decoded, so the rest may be broken. None
/// when the header is broken, or goes on behind these bytes (a JPEG's may lie behind a profile and a thumbnail).
std::optional<ImageSize> image_size(const uint8_t* data, size_t size);

/// The picture in `size` bytes at `data`. DataError that names `name` and the reason for anything that is
/// not a whole, sound picture: cut files, checksums that don't fit, corrupt data, too many pixels.
/// - JPEG: gray (1 channel) or RGB; CMYK and YCCK become RGB by multiplication with black, without a
///   colour profile; more than 100 scans are refused.
/// - PNG: 1 to 4 channels as stored; palettes and transparent colours become RGB or RGB + alpha; of 16
///   bits the upper 8 are kept. Animations give their default picture.
/// - WebP: RGB or RGB + alpha; animations are refused.
/// - BMP without compression, TGA: gray, RGB or RGB + alpha, as stb_image reads them.
/// - PNM (P5, P6): gray or RGB, scaled from its own largest value to 255.
Image decode_image(const uint8_t* data, size_t size, std::string_view name, const DecodeOptions& options = {});

/// decode_image for a picture that will be shrunk until its smaller side has `side` pixels, so that the whole costs
/// less: a JPEG whose smaller side stays at least kReductionMargin * side is decoded at 1/2, 1/4 or 1/8 of its size; of
/// others luma and colours stay apart, and become pixels after shrinking. After resize_clamped, which takes the blur of
/// that into account, samples differ from those of a whole decode by 0.15 to 1.1 of 255 on average and by at most 12
/// (five photographs; tests/media/resize_clamped_test.cpp holds synthetic ones to 0.8 and 12). Neither is done with
/// `as_mlx`.
ReducedImage decode_for_side(const uint8_t* data, size_t size, std::string_view name, int side,
                             const DecodeOptions& options = {});
inline constexpr double kReductionMargin = 2.5;

/// decode_image of a regular file; DataError when it can't be read or is above 1 GiB.
Image load_image(const std::filesystem::path& path, const DecodeOptions& options = {});

/// The orientation in EXIF data (a TIFF structure, without the "Exif\0\0" before it): 1 to 8, or 1 when
/// there is none or the data are broken. Never reads outside `size` bytes.
int exif_orientation(const uint8_t* data, size_t size);

/// The picture turned upright: what a viewer shows for that EXIF orientation. Error unless 1 to 8.
Image apply_orientation(Image image, int orientation);

}  // namespace mdm
