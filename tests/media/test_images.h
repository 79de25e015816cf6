// Pictures and files for the tests of this room, made by the libraries themselves or byte by byte.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "mdm/media/decode.h"
#include "mdm/media/image.h"

namespace mdm::test {

/// A smooth picture without symmetry.
Image gradient(int width, int height, int channels);

/// Independent random samples.
Image noise(int width, int height, int channels, uint64_t seed = 1);

enum class Subsampling { k444, k422, k420, k440, k411 };
std::string jpeg_of(const Image& image, Subsampling subsampling = Subsampling::k444, int quality = 95,
                    bool progressive = false);
/// The 4 channels of `image` as CMYK; `adobe` keeps the segment that says that ink is stored inverted.
std::string cmyk_jpeg_of(const Image& image, bool adobe);
/// An EXIF segment with that orientation behind the start of a JPEG.
std::string with_orientation(std::string jpeg, int orientation, bool big_endian);
std::string exif_block(int orientation, bool big_endian);

std::string webp_of(const Image& image, bool lossless, float quality = 90);

/// A PNG with raw rows as libpng takes them: `row(y)` gives the bytes of row y.
struct RawPng {
  int width = 0;
  int height = 0;
  int depth = 8;
  int colour = 0;  ///< PNG_COLOR_TYPE_*
  bool interlaced = false;
  std::string palette;        ///< RGB triples
  std::string palette_alpha;  ///< for the first entries
  int transparent_gray = -1;
  std::function<std::string(int)> row;
};
std::string png_of(const RawPng& raw);

std::string bmp_of(const Image& rgb);
std::string tga_of(const Image& image, bool run_length);
std::string pnm_of(const Image& image);

/// A PNG of header, the chunks given, and the end; checksums right.
std::string png_with_chunks(uint32_t width, uint32_t height, int depth, int colour, std::string_view chunks);
std::string png_chunk(std::string_view type, std::string_view data);
/// All checksums of the chunks that can be walked set right again.
std::string with_fixed_checksums(std::string png);
std::string deflated(std::string_view data);

/// A four-byte number written over the bytes at `at`.
void put_be32(std::string& bytes, size_t at, uint32_t value);
void put_be16(std::string& bytes, size_t at, uint16_t value);
void put_le32(std::string& bytes, size_t at, uint32_t value);
/// Offset of the first SOF segment's marker.
size_t jpeg_frame_at(const std::string& jpeg);

Image decode(std::string_view bytes, const DecodeOptions& options = {});
/// The text of the DataError that decoding throws; fails the test when there is none.
std::string decode_error(std::string_view bytes, const DecodeOptions& options = {});

int largest_difference(const Image& a, const Image& b);
double mean_difference(const Image& a, const Image& b);

/// Seconds of processor time and peak growth of resident memory of a call (growth is 0 under a sanitizer, whose own
/// memory would be measured, and where the kernel can't tell).
struct Cost {
  double seconds = 0;
  double peak_mib = 0;
};
Cost cost_of(const std::function<void()>& call);
/// How much longer things may take here: 1, or more under a sanitizer.
double patience();

}  // namespace mdm::test
