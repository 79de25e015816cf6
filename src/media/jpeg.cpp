// JPEG by libjpeg-turbo.
#include <turbojpeg.h>

#include <cstring>
#include <memory>

#include "media/decoders.h"

namespace mdm::detail {
namespace {

// Honest progressive files have about ten scans. Each costs a walk over all blocks, however few bytes it
// has, so large pictures with many are refused too (100 scans of 33 million pixels would take 5 s).
constexpr int kMostScans = 100;
constexpr uint64_t kMostScannedPixels = uint64_t{1} << 29;
constexpr int kScansAlwaysAllowed = 16;

struct TjDeleter {
  void operator()(void* handle) const { tjDestroy(handle); }
};

// Warnings about what doesn't touch the pixels. Everything else that libjpeg warns of is corruption. Only the
// first warning's text is kept by it; a cut file is found by its missing end marker, not by this.
bool harmless(void* handle) {
  if (tjGetErrorCode(handle) != TJERR_WARNING) return false;
  const std::string_view text = tjGetErrorStr2(handle);
  for (const char* known : {"extraneous bytes before marker", "unknown JFIF revision", "Unknown Adobe color transform",
                            "Invalid SOS parameters for sequential"}) {
    if (text.find(known) != std::string_view::npos) return true;
  }
  return false;
}

// CMYK as libjpeg gives it to RGB. Adobe's programs store 255 - ink.
Image rgb_of_cmyk(const Image& cmyk, bool inverted) {
  Image rgb(cmyk.width, cmyk.height, 3);
  const size_t count = cmyk.pixels.size() / 4;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* from = cmyk.pixels.data() + 4 * i;
    const int light = inverted ? from[3] : 255 - from[3];
    for (size_t c = 0; c < 3; ++c) {
      const int value = inverted ? from[c] : 255 - from[c];
      rgb.pixels[3 * i + c] = static_cast<uint8_t>((value * light + 127) / 255);
    }
  }
  return rgb;
}

}  // namespace

JpegLayout scan_jpeg(const uint8_t* data, size_t size) {
  JpegLayout layout;
  size_t at = 2;
  while (at < size) {
    const void* found = std::memchr(data + at, 0xFF, size - at);
    if (found == nullptr) return layout;
    at = static_cast<size_t>(static_cast<const uint8_t*>(found) - data);
    while (at < size && data[at] == 0xFF) ++at;
    if (at >= size) return layout;
    const uint8_t marker = data[at++];
    if (marker == 0xD9) {
      layout.complete = true;
      return layout;
    }
    if (marker == 0x00 || marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) continue;  // no length follows
    if (size - at < 2) return layout;
    const size_t length = read_be16(data + at);
    if (length < 2 || length > size - at) return layout;
    const uint8_t* body = data + at + 2;
    const size_t body_size = length - 2;
    if (marker == 0xDA) ++layout.scans;
    if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC)
      layout.frame_seen = true;
    if (marker == 0xEE && body_size >= 5 && std::memcmp(body, "Adobe", 5) == 0) layout.adobe = true;
    if (marker == 0xE1 && body_size >= 6 && std::memcmp(body, "Exif\0\0", 6) == 0) {
      layout.orientation = exif_orientation(body + 6, body_size - 6);
    }
    at += length;
  }
  return layout;
}

Image decode_jpeg(const ImageBytes& bytes, const DecodeOptions& options) {
  const JpegLayout layout = scan_jpeg(bytes.data, bytes.size);
  if (!layout.frame_seen) fail_image(bytes, "the JPEG file holds no picture");
  if (!layout.complete) fail_image(bytes, "the JPEG file is cut or broken: its end marker is missing");
  if (layout.scans > kMostScans) {
    fail_image(bytes, "the JPEG file has ", layout.scans, " scans, more than the ", kMostScans, " allowed");
  }
  const std::unique_ptr<void, TjDeleter> decoder(tjInitDecompress());
  if (!decoder) fail<Error>("libjpeg-turbo can't start: ", tjGetErrorStr2(nullptr));
  int width = 0;
  int height = 0;
  int subsampling = -1;
  int colours = -1;
  // A negative result with the numbers set means a warning, or a subsampling without a name of its own.
  if (tjDecompressHeader3(decoder.get(), bytes.data, bytes.size, &width, &height, &subsampling, &colours) != 0 &&
      (width < 1 || height < 1 || colours < 0)) {
    fail_image(bytes, "broken JPEG: ", tjGetErrorStr2(decoder.get()));
  }
  check_header(bytes, width, height, options.max_pixels);
  const uint64_t pixels = static_cast<uint64_t>(width) * static_cast<uint64_t>(height);
  if (layout.scans > kScansAlwaysAllowed && static_cast<uint64_t>(layout.scans) * pixels > kMostScannedPixels) {
    fail_image(bytes, "the JPEG file has ", layout.scans, " scans of ", width, " x ", height, " pixels, too many");
  }
  const bool cmyk = colours == TJCS_CMYK || colours == TJCS_YCCK;
  const int format = colours == TJCS_GRAY ? TJPF_GRAY : cmyk ? TJPF_CMYK : TJPF_RGB;
  Image image(width, height, tjPixelSize[format]);
  if (tjDecompress2(decoder.get(), bytes.data, bytes.size, image.pixels.data(), width, 0, height, format,
                    TJFLAG_LIMITSCANS) != 0 &&
      !harmless(decoder.get())) {
    fail_image(bytes, "broken JPEG: ", tjGetErrorStr2(decoder.get()));
  }
  if (cmyk) image = rgb_of_cmyk(image, layout.adobe);
  if (options.apply_exif_orientation) image = apply_orientation(std::move(image), layout.orientation);
  return image;
}

}  // namespace mdm::detail
