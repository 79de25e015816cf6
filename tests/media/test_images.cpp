#include "media/test_images.h"

#include <gtest/gtest.h>
#include <png.h>
#include <turbojpeg.h>
#include <webp/encode.h>
#include <zlib.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/core/random.h"

#if defined(__SANITIZE_ADDRESS__)
#define MDM_UNDER_SANITIZER 1
#else
#define MDM_UNDER_SANITIZER 0
#endif

namespace mdm::test {
namespace {

void append_be32(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

void append_le16(std::string& out, unsigned value) {
  out.push_back(static_cast<char>(value));
  out.push_back(static_cast<char>(value >> 8));
}

void append_le32(std::string& out, uint32_t value) {
  append_le16(out, value & 0xFFFF);
  append_le16(out, value >> 16);
}

std::string take_jpeg(tjhandle handle, int code, unsigned char* bytes, unsigned long size) {
  const std::string jpeg = code == 0 ? std::string(reinterpret_cast<char*>(bytes), size) : std::string();
  EXPECT_EQ(code, 0) << tjGetErrorStr2(handle);
  tjFree(bytes);
  tjDestroy(handle);
  return jpeg;
}

// Kilobytes of a line of /proc/self/status, or -1.
long status_kb(const char* name) {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind(name, 0) == 0) return std::atol(line.c_str() + std::strlen(name));
  }
  return -1;
}

}  // namespace

Image gradient(int width, int height, int channels) {
  Image image(width, height, channels);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        const int value = c == 0   ? 255 * x / width
                          : c == 1 ? 255 * y / height
                          : c == 2 ? 255 * (x + y) / (width + height)
                                   : 255 - 128 * x / width;
        image.row(y)[x * channels + c] = static_cast<uint8_t>(value);
      }
    }
  }
  return image;
}

Image noise(int width, int height, int channels, uint64_t seed) {
  Image image(width, height, channels);
  std::vector<uint32_t> words(image.pixels.size());
  RandomAddress address;
  address.seed = seed;
  random_bits(address, 0, words.data(), words.size());
  for (size_t i = 0; i < words.size(); ++i) image.pixels[i] = static_cast<uint8_t>(words[i]);
  return image;
}

static int turbojpeg_number(Subsampling subsampling) {
  switch (subsampling) {
    case Subsampling::k444: return TJSAMP_444;
    case Subsampling::k422: return TJSAMP_422;
    case Subsampling::k420: return TJSAMP_420;
    case Subsampling::k440: return TJSAMP_440;
    case Subsampling::k411: return TJSAMP_411;
  }
  return -1;
}

std::string jpeg_of(const Image& image, Subsampling subsampling, int quality, bool progressive) {
  tjhandle handle = tjInitCompress();
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const int format = image.channels == 1 ? TJPF_GRAY : TJPF_RGB;
  const int samples = image.channels == 1 ? TJSAMP_GRAY : turbojpeg_number(subsampling);
  const int code = tjCompress2(handle, image.pixels.data(), image.width, 0, image.height, format, &bytes, &size,
                               samples, quality, progressive ? TJFLAG_PROGRESSIVE : 0);
  return take_jpeg(handle, code, bytes, size);
}

std::string cmyk_jpeg_of(const Image& image, bool adobe) {
  tjhandle handle = tjInitCompress();
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const int code = tjCompress2(handle, image.pixels.data(), image.width, 0, image.height, TJPF_CMYK, &bytes, &size,
                               TJSAMP_444, 100, 0);
  std::string jpeg = take_jpeg(handle, code, bytes, size);
  const size_t segment = jpeg.find("\xFF\xEE");
  if (!adobe && segment != std::string::npos) jpeg.erase(segment, 16);
  return jpeg;
}

std::string exif_block(int orientation, bool big_endian) {
  const auto put16 = [&](std::string& out, unsigned value) {
    const char low = static_cast<char>(value);
    const char high = static_cast<char>(value >> 8);
    out.push_back(big_endian ? high : low);
    out.push_back(big_endian ? low : high);
  };
  const auto put32 = [&](std::string& out, unsigned value) {
    put16(out, big_endian ? value >> 16 : value & 0xFFFF);
    put16(out, big_endian ? value & 0xFFFF : value >> 16);
  };
  std::string block = big_endian ? "MM" : "II";
  put16(block, 42);
  put32(block, 8);
  put16(block, 2);       // entries
  put16(block, 0x0100);  // width, to be passed over
  put16(block, 4);
  put32(block, 1);
  put32(block, 100);
  put16(block, 0x0112);
  put16(block, 3);
  put32(block, 1);
  put16(block, static_cast<unsigned>(orientation));
  put16(block, 0);
  put32(block, 0);  // no further directory
  return block;
}

std::string with_orientation(std::string jpeg, int orientation, bool big_endian) {
  const std::string body = std::string("Exif\0\0", 6) + exif_block(orientation, big_endian);
  std::string segment = "\xFF\xE1";
  segment.push_back(static_cast<char>((body.size() + 2) >> 8));
  segment.push_back(static_cast<char>(body.size() + 2));
  return jpeg.insert(2, segment + body);
}

std::string webp_of(const Image& image, bool lossless, float quality) {
  uint8_t* bytes = nullptr;
  const int stride = static_cast<int>(image.row_bytes());
  const uint8_t* pixels = image.pixels.data();
  size_t size = 0;
  if (lossless) {
    const auto encode = image.channels == 4 ? WebPEncodeLosslessRGBA : WebPEncodeLosslessRGB;
    size = encode(pixels, image.width, image.height, stride, &bytes);
  } else {
    const auto encode = image.channels == 4 ? WebPEncodeRGBA : WebPEncodeRGB;
    size = encode(pixels, image.width, image.height, stride, quality, &bytes);
  }
  EXPECT_GT(size, 0u);
  const std::string webp(reinterpret_cast<char*>(bytes), size);
  WebPFree(bytes);
  return webp;
}

std::string png_of(const RawPng& raw) {
  std::string out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &out,
      [](png_structp writer, png_bytep bytes, size_t count) {
        static_cast<std::string*>(png_get_io_ptr(writer))->append(reinterpret_cast<char*>(bytes), count);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(raw.width), static_cast<png_uint_32>(raw.height), raw.depth,
               raw.colour, raw.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  std::vector<png_color> colours(raw.palette.size() / 3);
  for (size_t i = 0; i < colours.size(); ++i) {
    colours[i] = {static_cast<png_byte>(raw.palette[3 * i]), static_cast<png_byte>(raw.palette[3 * i + 1]),
                  static_cast<png_byte>(raw.palette[3 * i + 2])};
  }
  if (!colours.empty()) png_set_PLTE(png, info, colours.data(), static_cast<int>(colours.size()));
  if (!raw.palette_alpha.empty()) {
    png_set_tRNS(png, info, reinterpret_cast<png_const_bytep>(raw.palette_alpha.data()),
                 static_cast<int>(raw.palette_alpha.size()), nullptr);
  }
  if (raw.transparent_gray >= 0) {
    png_color_16 value{};
    value.gray = static_cast<png_uint_16>(raw.transparent_gray);
    png_set_tRNS(png, info, nullptr, 0, &value);
  }
  png_write_info(png, info);
  std::vector<std::string> rows;
  std::vector<png_bytep> pointers;
  for (int y = 0; y < raw.height; ++y) rows.push_back(raw.row(y));
  for (std::string& row : rows) pointers.push_back(reinterpret_cast<png_bytep>(row.data()));
  png_write_image(png, pointers.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return out;
}

std::string bmp_of(const Image& rgb) {
  const size_t row = (rgb.row_bytes() + 3) / 4 * 4;
  std::string out = "BM";
  append_le32(out, static_cast<uint32_t>(54 + row * static_cast<size_t>(rgb.height)));
  append_le32(out, 0);
  append_le32(out, 54);
  append_le32(out, 40);
  append_le32(out, static_cast<uint32_t>(rgb.width));
  append_le32(out, static_cast<uint32_t>(rgb.height));
  append_le16(out, 1);
  append_le16(out, 24);
  out.append(24, '\0');
  for (int y = rgb.height - 1; y >= 0; --y) {
    const size_t start = out.size();
    for (int x = 0; x < rgb.width; ++x) {
      for (int c = 2; c >= 0; --c) out.push_back(static_cast<char>(rgb.row(y)[3 * x + c]));
    }
    out.resize(start + row, '\0');
  }
  return out;
}

std::string tga_of(const Image& image, bool run_length) {
  const int kind = (image.channels == 1 ? 3 : 2) + (run_length ? 8 : 0);
  std::string out{'\0', '\0', static_cast<char>(kind)};
  out.append(9, '\0');
  append_le16(out, static_cast<unsigned>(image.width));
  append_le16(out, static_cast<unsigned>(image.height));
  out.push_back(static_cast<char>(8 * image.channels));
  out.push_back(0x20);  // first row on top
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      if (run_length) out.push_back(x % 2 == 0 ? '\0' : static_cast<char>(0x80));  // one raw, one run of one
      const uint8_t* pixel = image.row(y) + x * image.channels;
      for (int c = 0; c < image.channels; ++c) {
        out.push_back(static_cast<char>(pixel[c < 3 && image.channels >= 3 ? 2 - c : c]));
      }
    }
  }
  return out;
}

std::string pnm_of(const Image& image) {
  std::string out =
      concat("P", image.channels == 3 ? 6 : 5, "\n# made by a test\n", image.width, " ", image.height, "\n255\n");
  return out.append(reinterpret_cast<const char*>(image.pixels.data()), image.pixels.size());
}

std::string png_chunk(std::string_view type, std::string_view data) {
  std::string out;
  append_be32(out, static_cast<uint32_t>(data.size()));
  out += type;
  out += data;
  append_be32(out, static_cast<uint32_t>(
                       crc32(0, reinterpret_cast<const Bytef*>(out.data() + 4), static_cast<uInt>(data.size() + 4))));
  return out;
}

std::string png_with_chunks(uint32_t width, uint32_t height, int depth, int colour, std::string_view chunks) {
  std::string header;
  append_be32(header, width);
  append_be32(header, height);
  header += {static_cast<char>(depth), static_cast<char>(colour), '\0', '\0', '\0'};
  return std::string("\x89PNG\r\n\x1A\n") + png_chunk("IHDR", header) + std::string(chunks) + png_chunk("IEND", {});
}

std::string with_fixed_checksums(std::string png) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(png.data());
  for (size_t at = 8; at + 12 <= png.size();) {
    const size_t length =
        static_cast<size_t>(bytes[at]) << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
    if (length > png.size() - at - 12) break;
    put_be32(png, at + 8 + length, static_cast<uint32_t>(crc32(0, bytes + at + 4, static_cast<uInt>(length + 4))));
    at += length + 12;
  }
  return png;
}

std::string deflated(std::string_view data) {
  uLongf size = compressBound(data.size());
  std::string out(size, '\0');
  EXPECT_EQ(compress2(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(data.data()),
                      data.size(), 6),
            Z_OK);
  out.resize(size);
  return out;
}

void put_be16(std::string& bytes, size_t at, uint16_t value) {
  bytes.at(at) = static_cast<char>(value >> 8);
  bytes.at(at + 1) = static_cast<char>(value);
}

void put_be32(std::string& bytes, size_t at, uint32_t value) {
  put_be16(bytes, at, static_cast<uint16_t>(value >> 16));
  put_be16(bytes, at + 2, static_cast<uint16_t>(value));
}

void put_le32(std::string& bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes.at(at + i) = static_cast<char>(value >> (8 * i));
}

size_t jpeg_frame_at(const std::string& jpeg) {
  for (size_t at = 2; at + 1 < jpeg.size(); ++at) {
    const auto marker = static_cast<uint8_t>(jpeg[at + 1]);
    if (static_cast<uint8_t>(jpeg[at]) == 0xFF && (marker == 0xC0 || marker == 0xC2)) return at;
  }
  ADD_FAILURE() << "no frame";
  return 0;
}

Image decode(std::string_view bytes, const DecodeOptions& options) {
  // A copy of exactly this size, so that a sanitizer sees a read behind the end.
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::memcpy(copy.get(), bytes.data(), bytes.size());
  return decode_image(copy.get(), bytes.size(), "test.img", options);
}

std::string decode_error(std::string_view bytes, const DecodeOptions& options) {
  try {
    decode(bytes, options);
  } catch (const DataError& error) {
    EXPECT_EQ(std::string(error.what()).rfind("test.img: ", 0), 0u) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

int largest_difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.height, b.height);
  EXPECT_EQ(a.channels, b.channels);
  if (a.pixels.size() != b.pixels.size()) return 999;
  int largest = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  return largest;
}

double mean_difference(const Image& a, const Image& b) {
  if (a.pixels.size() != b.pixels.size() || a.width != b.width) return 999;
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

Cost cost_of(const std::function<void()>& call) {
  const bool reset = static_cast<bool>(std::ofstream("/proc/self/clear_refs") << "5" << std::flush);
  const long before = status_kb("VmRSS:");
  const std::clock_t start = std::clock();
  call();
  Cost cost;
  cost.seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  if (reset && MDM_UNDER_SANITIZER == 0) cost.peak_mib = static_cast<double>(status_kb("VmHWM:") - before) / 1024;
  return cost;
}

double patience() { return MDM_UNDER_SANITIZER != 0 ? 10 : 1; }

}  // namespace mdm::test
