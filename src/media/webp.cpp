// WebP by libwebp: still pictures.
#include <webp/decode.h>

#include "media/decoders.h"

namespace mdm::detail {

Image decode_webp(const ImageBytes& bytes, const DecodeOptions& options) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(bytes.data, bytes.size, &features) != VP8_STATUS_OK) {
    fail_image(bytes, "broken WebP: its header can't be read");
  }
  if (features.has_animation != 0) fail_image(bytes, "is a WebP animation; only still pictures are read");
  check_header(bytes, features.width, features.height, options.max_pixels);
  Image image(features.width, features.height, features.has_alpha != 0 ? 4 : 3);
  const auto decode = features.has_alpha != 0 ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
  if (decode(bytes.data, bytes.size, image.pixels.data(), image.pixels.size(), static_cast<int>(image.row_bytes())) ==
      nullptr) {
    fail_image(bytes, "broken WebP: the file is cut or corrupt");
  }
  return image;
}

std::optional<ImageSize> webp_size(const ImageBytes& bytes) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(bytes.data, bytes.size, &features) != VP8_STATUS_OK) return std::nullopt;
  return ImageSize{features.width, features.height};
}

}  // namespace mdm::detail
