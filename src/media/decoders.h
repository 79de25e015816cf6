// One function for each library that decodes pictures; decode.cpp chooses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "mdm/core/error.h"
#include "mdm/media/decode.h"

namespace mdm::detail {

/// Bytes to decode, and how errors call them.
struct ImageBytes {
  const uint8_t* data;
  size_t size;
  std::string_view name;
};

template <typename... Parts>
[[noreturn]] void fail_image(const ImageBytes& bytes, const Parts&... parts) {
  fail<DataError>(printable(bytes.name, 1000), ": ", parts...);
}

/// DataError when a header's sides are not positive or the picture has too many pixels.
void check_header(const ImageBytes& bytes, int64_t width, int64_t height, uint64_t max_pixels);

/// `side`: decode_for_side; 0: at full size.
ReducedImage decode_jpeg(const ImageBytes& bytes, const DecodeOptions& options, int side);
Image decode_png(const ImageBytes& bytes, const DecodeOptions& options);
Image decode_webp(const ImageBytes& bytes, const DecodeOptions& options);
Image decode_pnm(const ImageBytes& bytes, const DecodeOptions& options);
/// BMP and TGA.
Image decode_with_stb(const ImageBytes& bytes, const DecodeOptions& options);

std::optional<ImageSize> webp_size(const ImageBytes& bytes);
std::optional<ImageSize> pnm_size(const ImageBytes& bytes);

/// What the markers of a JPEG file say, found without decoding.
struct JpegLayout {
  bool frame_seen = false;
  bool complete = false;  // the end marker was reached
  bool adobe = false;     // an APP14 "Adobe" segment: CMYK is stored inverted
  int scans = 0;
  int orientation = 1;
};
JpegLayout scan_jpeg(const uint8_t* data, size_t size);

/// Whether the bytes look like a TGA header.
bool plausible_tga(const uint8_t* data, size_t size);

inline uint16_t read_be16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
inline uint32_t read_be32(const uint8_t* p) { return uint32_t{read_be16(p)} << 16 | read_be16(p + 2); }
inline uint16_t read_le16(const uint8_t* p) { return static_cast<uint16_t>(p[1] << 8 | p[0]); }
inline uint32_t read_le32(const uint8_t* p) { return uint32_t{read_le16(p + 2)} << 16 | read_le16(p); }

}  // namespace mdm::detail
