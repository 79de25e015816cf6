// PNG files with text in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

/// Keyword and text, in the order of the file. Keywords: 1 to 79 printable ASCII characters. Texts: UTF-8.
using PngText = std::vector<std::pair<std::string, std::string>>;

/// Where other programs look for the settings of a generated picture, as readable text.
inline constexpr const char* kPngParametersKey = "parameters";
/// Where we keep them as JSON.
inline constexpr const char* kPngSettingsKey = "mdm";

/// The file as bytes; 8 bits a sample. `level` is zlib's, 0 to 9. ASCII texts are written as tEXt, others as
/// iTXt; bytes that are not UTF-8 become U+FFFD, NUL characters too. Error when a keyword is not allowed, or
/// a text is above 64 MiB.
std::string encode_png(const Image& image, const PngText& text = {}, int level = 6);

/// encode_png into a file that appears complete or not at all.
void write_png(const std::filesystem::path& path, const Image& image, const PngText& text = {}, int level = 6);

struct PngTextLimits {
  size_t entries = 1000;
  size_t total_bytes = size_t{4} << 20;  ///< keywords and texts, after decompression
};

/// The texts of a PNG file (tEXt, zTXt, iTXt; as UTF-8), in its order; pixels are not looked at. DataError
/// that names `name` when it is no PNG, is cut, has a checksum that doesn't fit, or holds more than `limits`.
PngText read_png_text(const uint8_t* data, size_t size, std::string_view name, const PngTextLimits& limits = {});
PngText read_png_text(const std::filesystem::path& path, const PngTextLimits& limits = {});

/// The first text with that keyword, or null.
const std::string* find_png_text(const PngText& text, std::string_view keyword);

}  // namespace mdm
