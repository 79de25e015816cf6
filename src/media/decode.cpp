// Which decoder for which bytes, and the checks that all of them share.
#include "mdm/media/decode.h"

#include <cstring>

#include "mdm/core/files.h"
#include "media/decoders.h"

namespace mdm {
namespace {

constexpr size_t kMostFileBytes = size_t{1} << 30;

bool begins_with(const uint8_t* data, size_t size, std::string_view mark) {
  return size >= mark.size() && std::memcmp(data, mark.data(), mark.size()) == 0;
}

}  // namespace

namespace detail {

void check_header(const ImageBytes& bytes, int64_t width, int64_t height, uint64_t max_pixels) {
  if (width < 1 || height < 1 || width > INT32_MAX || height > INT32_MAX) {
    fail_image(bytes, "a picture of ", width, " x ", height, " pixels is not possible");
  }
  if (static_cast<uint64_t>(width) * static_cast<uint64_t>(height) > max_pixels) {
    fail_image(bytes, "the picture has ", width, " x ", height, " pixels, more than the ", max_pixels, " allowed");
  }
}

}  // namespace detail

ImageFormat image_format(const uint8_t* data, size_t size) {
  using namespace std::string_view_literals;
  if (begins_with(data, size, "\xFF\xD8\xFF"sv)) return ImageFormat::kJpeg;
  if (begins_with(data, size, "\x89PNG\r\n\x1A\n"sv)) return ImageFormat::kPng;
  if (size >= 12 && begins_with(data, size, "RIFF"sv) && begins_with(data + 8, size - 8, "WEBP"sv)) {
    return ImageFormat::kWebp;
  }
  if (size >= 26 && begins_with(data, size, "BM"sv)) return ImageFormat::kBmp;
  if (begins_with(data, size, "P5"sv) || begins_with(data, size, "P6"sv)) return ImageFormat::kPnm;
  if (detail::plausible_tga(data, size)) return ImageFormat::kTga;
  return ImageFormat::kUnknown;
}

const char* image_format_name(ImageFormat format) {
  switch (format) {
    case ImageFormat::kJpeg: return "JPEG";
    case ImageFormat::kPng: return "PNG";
    case ImageFormat::kWebp: return "WebP";
    case ImageFormat::kBmp: return "BMP";
    case ImageFormat::kTga: return "TGA";
    case ImageFormat::kPnm: return "PNM";
    case ImageFormat::kUnknown: break;
  }
  return "unknown";
}

namespace {

Image decode_any(const detail::ImageBytes& bytes, const DecodeOptions& options) {
  switch (image_format(bytes.data, bytes.size)) {
    case ImageFormat::kJpeg: return detail::decode_jpeg(bytes, options, 0).image;
    case ImageFormat::kPng: return detail::decode_png(bytes, options);
    case ImageFormat::kWebp: return detail::decode_webp(bytes, options);
    case ImageFormat::kPnm: return detail::decode_pnm(bytes, options);
    case ImageFormat::kBmp:
    case ImageFormat::kTga: return detail::decode_with_stb(bytes, options);
    case ImageFormat::kUnknown: break;
  }
  detail::fail_image(bytes, "is no picture that can be read here (JPEG, PNG, WebP, BMP, TGA, PNM); it begins with \"",
                     printable({reinterpret_cast<const char*>(bytes.data), bytes.size}, 16), "\"");
}

}  // namespace

Image decode_image(const uint8_t* data, size_t size, std::string_view name, const DecodeOptions& options) {
  const detail::ImageBytes bytes{data, size, name};
  if (size == 0) detail::fail_image(bytes, "is empty");
  Image image = decode_any(bytes, options);
  if (options.as_mlx && image.channels == 4) return to_rgb(image, AlphaRule::kDrop);
  return image;
}

ReducedImage decode_for_side(const uint8_t* data, size_t size, std::string_view name, int side,
                             const DecodeOptions& options) {
  if (!options.as_mlx && image_format(data, size) == ImageFormat::kJpeg) {
    return detail::decode_jpeg({data, size, name}, options, side);
  }
  ReducedImage whole;
  whole.image = decode_image(data, size, name, options);
  whole.full_width = whole.image.width;
  whole.full_height = whole.image.height;
  return whole;
}

Image load_image(const std::filesystem::path& path, const DecodeOptions& options) {
  const auto file = FileBytes::open(path);
  if (file->size() > kMostFileBytes) {
    fail<DataError>(printable(path.string(), 1000), ": has ", file->size(), " bytes, more than the ", kMostFileBytes,
                    " allowed for a picture");
  }
  return decode_image(file->data(), file->size(), path.string(), options);
}

}  // namespace mdm
