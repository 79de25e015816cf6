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
  int subsampling = -1;  // -1: of a kind without a name
};

JpegHeader read_header(const ImageBytes& bytes, const JpegLayout& layout, void* decoder, uint64_t max_pixels) {
  JpegHeader header;
  // A negative result with the numbers set means a warning, or a subsampling without a name of its own.
  if (tjDecompressHeader3(decoder, bytes.data, bytes.size, &header.width, &header.height, &header.subsampling,
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

// Colours of a quarter of the width (4:1:1) are repeated in a whole decode instead of interpolated, so that no other
// way comes near it; they are rare.
bool interpolated(const JpegHeader& header) { return header.subsampling != TJSAMP_411; }

bool has_planes(const JpegHeader& header) {
  return header.colours == TJCS_YCbCr && header.subsampling >= 0 && interpolated(header);
}

// Pixels of one format, at 1 / reduction of the size.
int decode_pixels(const ImageBytes& bytes, void* decoder, const JpegHeader& header, int format, ReducedImage& result) {
  Image& image = result.image;
  image = Image(divided_up(header.width, result.reduction), divided_up(header.height, result.reduction),
                tjPixelSize[format]);
  return tjDecompress2(decoder, bytes.data, bytes.size, image.pixels.data(), image.width, 0, image.height, format,
                       TJFLAG_LIMITSCANS);
}

// The upper left part, in place.
void cut(Image& plane, int width, int height) {
  if (width == plane.width && height == plane.height) return;
  const auto kept = static_cast<size_t>(width);
  for (int y = 1; y < height; ++y) {
    std::memmove(plane.pixels.data() + static_cast<size_t>(y) * kept, plane.row(y), kept);
  }
  plane.width = width;
  plane.height = height;
  plane.pixels.resize(kept * static_cast<size_t>(height));
}

// Luma and colour differences as the file has them: what makes pixels of them is better done after shrinking.
int decode_planes(const ImageBytes& bytes, void* decoder, const JpegHeader& header, ReducedImage& result) {
  const int width = header.width, height = header.height;
  const auto plane = [&](int number) {
    return Image(tjPlaneWidth(number, width, header.subsampling), tjPlaneHeight(number, height, header.subsampling), 1);
  };
  result.image = plane(0);
  result.chroma = {plane(1), plane(2)};
  result.chroma_across = tjMCUWidth[header.subsampling] / 8;
  result.chroma_down = tjMCUHeight[header.subsampling] / 8;
  uint8_t* planes[] = {result.image.pixels.data(), result.chroma[0].pixels.data(), result.chroma[1].pixels.data()};
  int strides[] = {result.image.width, result.chroma[0].width, result.chroma[1].width};
  const int status =
      tjDecompressToYUVPlanes(decoder, bytes.data, bytes.size, planes, width, strides, height, TJFLAG_LIMITSCANS);
  cut(result.image, width, height);  // what libjpeg has filled up to whole pixels of colour
  return status;
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
  result.full_width = header.width;
  result.full_height = header.height;
  result.reduction = interpolated(header) ? reduction_for(header.width, header.height, side) : 1;
  const bool turned = options.apply_exif_orientation && !options.as_mlx && layout.orientation != 1;
  // Not of a picture decoded small: libjpeg then keeps more of subsampled colours than their planes do. Not turned: the
  // planes would no longer begin together.
  const bool shrinks = side > 0 && std::min(header.width, header.height) > side;
  const bool apart = shrinks && result.reduction == 1 && !turned && !options.as_mlx && has_planes(header);
  const int status = apart ? decode_planes(bytes, decoder.get(), header, result)
                           : decode_pixels(bytes, decoder.get(), header, format, result);
  if (status != 0 && !harmless(decoder.get()) && !(options.as_mlx && tjGetErrorCode(decoder.get()) == TJERR_WARNING)) {
    fail_image(bytes, "broken JPEG: ", tjGetErrorStr2(decoder.get()));
  }
  if (cmyk) result.image = options.as_mlx ? first_three(result.image) : rgb_of_cmyk(result.image, layout.adobe);
  if (turned) {
    result.image = apply_orientation(std::move(result.image), layout.orientation);
    if (layout.orientation > 4) std::swap(result.full_width, result.full_height);
  }
  return result;
}

}  // namespace mdm::detail
