// The chunks of a PNG file: walked with bounds, and written.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "media/decoders.h"

namespace mdm::detail {

inline constexpr std::string_view kPngSignature{"\x89PNG\r\n\x1A\n", 8};

/// Calls `visit(type, data)` for every chunk up to IEND. The checksums of the chunks whose type `checked`
/// accepts are verified. DataError when the file is no PNG, is cut, or a checksum doesn't fit.
void walk_png_chunks(const ImageBytes& bytes, const std::function<bool(std::string_view)>& checked,
                     const std::function<void(std::string_view, std::string_view)>& visit);

void append_be32(std::string& out, uint32_t value);
void append_be16(std::string& out, uint16_t value);

/// Length, type, data, checksum.
void append_png_chunk(std::string& out, std::string_view type, std::string_view data);

}  // namespace mdm::detail
