// From the bytes of an image file to the square that the model is trained on.
#pragma once

#include <cstdint>
#include <string_view>

#include "mdm/config/reader_config.h"
#include "mdm/media/image.h"

namespace mdm {

/// Where the square is cut, and whether it is mirrored.
struct CropChoice {
  bool centre = true;
  uint32_t x = 0;  ///< of 2^32, of the room that there is; counts when not `centre`
  uint32_t y = 0;
  bool flip = false;
};

/// The choice for a sample of the plan: stream kCrop at (seed, number). The centre without random_crop.
CropChoice choose_crop(const ReaderConfig& reader, uint64_t seed, uint64_t number);

struct TrainingImage {
  Image image;           ///< image_size x image_size, or the whole picture when image_size is -1
  int smaller_side = 0;  ///< of the file's picture, in pixels
  int crop_x = 0, crop_y = 0;
};

/// Decodes, resizes so that the smaller side is ReaderConfig::smaller_side_size (image_size when that is -1), and
/// cuts image_size x image_size. RGB: gray is repeated, alpha blended over white, EXIF orientation applied. JPEGs
/// that are much too large are decoded at a reduced scale (decode.h: decode_for_side). DataError.
///
/// With compat kMlx as the reference's mlx-data 0.1.0 reads: the smaller side becomes image_size, the crop is
/// central, EXIF is ignored, alpha dropped, PNGs keep 1 or 2 channels, damaged JPEG scans and wrong PNG checksums
/// pass. Out of its scope: files on which the reference hangs (JPEGs without end marker: DataError), GIF (DataError),
/// formats that the reference can't read (WebP: read all the same), one extra pass over the data with num_epochs,
/// texts of errors.
TrainingImage read_training_image(const uint8_t* data, size_t size, std::string_view name, const ReaderConfig& reader,
                                  const CropChoice& crop = {});

}  // namespace mdm
