// JPEG files by libjpeg-turbo.
#include <turbojpeg.h>

#include <memory>

#include "mdm/core/error.h"
#include "mdm/media/jpeg.h"

namespace mdm {

std::string encode_jpeg(const Image& image, int quality) {
  check_image(image, "a picture for a JPEG file");
  if (quality < 1 || quality > 100) fail("a JPEG quality of ", quality, " is not in 1..100");
  if (image.channels != 1 && image.channels != 3) fail("a JPEG file can't hold ", image.channels, " channels");
  const bool gray = image.channels == 1;
  const std::unique_ptr<void, int (*)(void*)> encoder(tjInitCompress(), &tjDestroy);
  if (!encoder) fail("libjpeg-turbo can't start: ", tjGetErrorStr2(nullptr));
  const int colours = gray ? TJSAMP_GRAY : TJSAMP_420;
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const int status = tjCompress2(encoder.get(), image.pixels.data(), image.width, 0, image.height,
                                 gray ? TJPF_GRAY : TJPF_RGB, &bytes, &size, colours, quality, 0);
  const std::unique_ptr<unsigned char, void (*)(unsigned char*)> owned(bytes, &tjFree);
  if (status != 0) fail("a picture can't be encoded as JPEG: ", tjGetErrorStr2(encoder.get()));
  return {reinterpret_cast<const char*>(bytes), size};
}

}  // namespace mdm
