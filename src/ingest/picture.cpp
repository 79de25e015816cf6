#include "ingest/picture.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/media/decode.h"
#include "mdm/media/jpeg.h"
#include "mdm/media/resize.h"

namespace mdm::ingest {
namespace {

constexpr uint64_t kLargePixels = uint64_t{1} << 22;
// A whole decode shows damage, and a JPEG's scan is read whole however small the picture becomes: 1 costs least.
constexpr int kSmallest = 1;

const uint8_t* bytes_of(const std::string& file) { return reinterpret_cast<const uint8_t*>(file.data()); }

ReducedImage decode(const std::string& file, int side, uint64_t max_pixels) {
  DecodeOptions options;
  options.max_pixels = max_pixels;
  return decode_for_side(bytes_of(file), file.size(), "picture", side, options);
}

// Memory for one large picture at a time.
ReducedImage decode_bounded(const std::string& file, int side, uint64_t max_pixels) {
  if (max_pixels > kLargePixels) {
    try {
      return decode(file, side, kLargePixels);
    } catch (const DataError&) {  // too large, or broken: the second look tells
    }
  }
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  return decode(file, side, max_pixels);
}

const char* ending_of(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng: return "png";
    case ImageFormat::kWebp: return "webp";
    case ImageFormat::kBmp: return "bmp";
    case ImageFormat::kTga: return "tga";
    case ImageFormat::kPnm: return "ppm";
    default: return "jpg";
  }
}

bool too_many_pixels(const char* text) {
  return std::string_view(text).find(" pixels, more than the ") != std::string_view::npos;
}

void resize_picture(const ReducedImage& decoded, const ScrapeSettings& settings, Picture& picture) {
  const double scale = static_cast<double>(settings.resize_side) / std::min(decoded.full_width, decoded.full_height);
  const auto scaled = [scale](int side) { return std::max(1, static_cast<int>(std::lround(side * scale))); };
  picture.width = scaled(decoded.full_width);
  picture.height = scaled(decoded.full_height);
  const Image small = resize_clamped(decoded, picture.width, picture.height);
  picture.bytes = encode_jpeg(to_rgb(small, AlphaRule::kOnWhite), settings.jpeg_quality);
  picture.ending = "jpg";
  picture.file_sha256 = sha256_hex(picture.bytes);
}

}  // namespace

bool check_picture(std::string file, const ScrapeSettings& settings, Picture& picture, Failure& failure) {
  if (file.empty()) {
    failure = {"empty", "the server sends no bytes"};
    return false;
  }
  const ImageFormat format = image_format(bytes_of(file), file.size());
  if (format == ImageFormat::kUnknown) {
    failure = {"not_an_image",
               concat("no format that is known; it begins with \"", printable(file.substr(0, 16)), '"')};
    return false;
  }
  try {
    const int side = settings.resize_side > 0 ? settings.resize_side : kSmallest;
    const ReducedImage decoded = decode_bounded(file, side, settings.max_pixels);
    picture.original_width = picture.width = decoded.full_width;
    picture.original_height = picture.height = decoded.full_height;
    if (std::min(picture.width, picture.height) < settings.min_side) {
      failure = {"too_small", concat(picture.width, " x ", picture.height, " pixels")};
      return false;
    }
    picture.sha256 = sha256_hex(file);
    if (settings.resize_side > 0 && std::min(picture.width, picture.height) > settings.resize_side) {
      resize_picture(decoded, settings, picture);
    } else {
      picture.ending = ending_of(format);
      picture.bytes = std::move(file);
      picture.file_sha256 = picture.sha256;
    }
    return true;
  } catch (const DataError& error) {
    failure = {too_many_pixels(error.what()) ? "too_many_pixels" : "broken_image", error.what()};
    return false;
  }
}

}  // namespace mdm::ingest
