// Captions on pictures: one small font, of ASCII letters alone.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

/// From one line to the next, in pixels.
inline constexpr int kTextLineHeight = 12;

/// What draw_text() shows of a text: white space of any kind as one space, what the font lacks as '?' (one for each
/// code point, or byte that is not UTF-8).
std::string drawable_text(std::string_view text);

/// Pixels from the first column of a line to behind the last.
int text_width(std::string_view line);

/// Draws one line whose upper left corner is (x, y), in `colour` (RGB). What leaves the picture is cut. Error unless
/// the picture has 3 channels.
void draw_text(Image& image, int x, int y, std::string_view line, const std::array<uint8_t, 3>& colour);

/// drawable_text() in lines of at most `width` pixels, broken at spaces where there are some, else inside words. At
/// most `most_lines`; where text is left over, the last one ends in "...". Error unless width is at least 32.
std::vector<std::string> wrap_text(std::string_view text, int width, int most_lines);

}  // namespace mdm
