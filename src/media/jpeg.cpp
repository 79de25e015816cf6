// JPEG by libjpeg-turbo.
#include <turbojpeg.h>

#include <algorithm>
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

// The first three inks taken for red, green and blue.
Image first_three(const Image& cmyk) { return to_rgb(cmyk, AlphaRule::kDrop); }

// The largest reduction that leaves the smaller side at least kReductionMargin * side. Only powers of two have vector
// code in libjpeg-turbo.
int reduction_for(int width, int height, int side) {
  int reduction = 1;
  if (side <= 0) return reduction;
  const double smaller = std::min(width, height);
  while (reduction < 8 && smaller / (2 * reduction) >= kReductionMargin * side) reduction *= 2;
  return reduction;
}

int divided_up(int size, int by) { return (size + by - 1) / by; }

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

namespace {

// Size and colours, and the checks that they allow.
struct JpegHeader {
  int width = 0;
  int height = 0;
  int colours = -1;
};

JpegHeader read_header(const ImageBytes& bytes, const JpegLayout& layout, void* decoder, uint64_t max_pixels) {
  JpegHeader header;
  int subsampling = -1;
  // A negative result with the numbers set means a warning, or a subsampling without a name of its own.
  if (tjDecompressHeader3(decoder, bytes.data, bytes.size, &header.width, &header.height, &subsampling,
                          &header.colours) != 0 &&
      (header.width < 1 || header.height < 1 || header.colours < 0)) {
    fail_image(bytes, "broken JPEG: ", tjGetErrorStr2(decoder));
  }
  check_header(bytes, header.width, header.height, max_pixels);
  const uint64_t pixels = static_cast<uint64_t>(header.width) * static_cast<uint64_t>(header.height);
  if (layout.scans > kScansAlwaysAllowed && static_cast<uint64_t>(layout.scans) * pixels > kMostScannedPixels) {
    fail_image(bytes, "the JPEG file has ", layout.scans, " scans of ", header.width, " x ", header.height,
               " pixels, too many");
  }
  return header;
}

}  // namespace

ReducedImage decode_jpeg(const ImageBytes& bytes, const DecodeOptions& options, int side) {
  const JpegLayout layout = scan_jpeg(bytes.data, bytes.size);
  if (!layout.frame_seen) fail_image(bytes, "the JPEG file holds no picture");
  if (!layout.complete) fail_image(bytes, "the JPEG file is cut or broken: its end marker is missing");
  if (layout.scans > kMostScans) {
    fail_image(bytes, "the JPEG file has ", layout.scans, " scans, more than the ", kMostScans, " allowed");
  }
  const std::unique_ptr<void, TjDeleter> decoder(tjInitDecompress());
  if (!decoder) fail<Error>("libjpeg-turbo can't start: ", tjGetErrorStr2(nullptr));
  const JpegHeader header = read_header(bytes, layout, decoder.get(), options.max_pixels);
  const bool cmyk = header.colours == TJCS_CMYK || header.colours == TJCS_YCCK;
  const int gray = options.as_mlx ? TJPF_RGB : TJPF_GRAY;
  const int format = header.colours == TJCS_GRAY ? gray : cmyk ? TJPF_CMYK : TJPF_RGB;
  ReducedImage result;
  result.reduction = reduction_for(header.width, header.height, side);
  Image image(divided_up(header.width, result.reduction), divided_up(header.height, result.reduction),
              tjPixelSize[format]);
  if (tjDecompress2(decoder.get(), bytes.data, bytes.size, image.pixels.data(), image.width, 0, image.height, format,
                    TJFLAG_LIMITSCANS) != 0 &&
      !harmless(decoder.get()) && !(options.as_mlx && tjGetErrorCode(decoder.get()) == TJERR_WARNING)) {
    fail_image(bytes, "broken JPEG: ", tjGetErrorStr2(decoder.get()));
  }
  if (cmyk) image = options.as_mlx ? first_three(image) : rgb_of_cmyk(image, layout.adobe);
  const bool turned = options.apply_exif_orientation && !options.as_mlx;
  const bool sideways = turned && layout.orientation > 4;
  result.image = turned ? apply_orientation(std::move(image), layout.orientation) : std::move(image);
  result.full_width = sideways ? header.height : header.width;
  result.full_height = sideways ? header.width : header.height;
  return result;
}

}  // namespace mdm::detail
