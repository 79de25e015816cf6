// Letters by stb_easy_font, which makes rectangles of them.
#include "mdm/media/text.h"

#include <stb/stb_easy_font.h>
#include <algorithm>
#include <cstring>

#include "mdm/core/error.h"
#include "mdm/core/utf8.h"

namespace mdm {
namespace {

constexpr char kFirst = ' ', kLast = '~';  // what the font has
constexpr const char* kCut = "...";
constexpr int kLeastWidth = 32;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// A corner of a rectangle as the font's header writes it.
struct Corner {
  float x, y, z;
  uint8_t colour[4];
};
static_assert(sizeof(Corner) == 16);

void fill(Image& image, int left, int top, int right, int bottom, const std::array<uint8_t, 3>& colour) {
  const int last_row = std::min(bottom, image.height), last_column = std::min(right, image.width);
  for (int y = std::max(top, 0); y < last_row; ++y) {
    for (int x = std::max(left, 0); x < last_column; ++x) std::copy(colour.begin(), colour.end(), image.row(y) + 3 * x);
  }
}

// As many letters of `text` as fit; at least one, so that wrapping ends.
size_t letters_within(std::string_view text, int width) {
  size_t count = 1;
  while (count < text.size() && text_width(text.substr(0, count + 1)) <= width) ++count;
  return count;
}

// Ends in "...", which takes the place of letters where it must.
std::string cut_line(std::string line, int width) {
  while (!line.empty() && text_width(line + kCut) > width) line.pop_back();
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line + kCut;
}

}  // namespace

std::string drawable_text(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = std::max<size_t>(1, utf8_length(text));
    const char c = text.front();
    if (is_space(c)) {
      if (!out.empty() && out.back() != ' ') out += ' ';
    } else {
      out += c >= kFirst && c <= kLast ? c : '?';
    }
    text.remove_prefix(length);
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

int text_width(std::string_view line) {
  std::string text = drawable_text(line);
  return stb_easy_font_width(text.data());
}

void draw_text(Image& image, int x, int y, std::string_view line, const std::array<uint8_t, 3>& colour) {
  check_image(image, "draw_text");
  if (image.channels != 3) fail<Error>("draw_text: the picture has ", image.channels, " channels and not 3");
  constexpr size_t kMostRectangles = 32;  // of a letter
  constexpr size_t kCorners = 4;
  std::vector<Corner> corners(kMostRectangles * kCorners);
  for (const char letter : drawable_text(line)) {  // one by one: long texts need no long buffer
    char text[] = {letter, '\0'};
    const int count =
        stb_easy_font_print(0, 0, text, nullptr, corners.data(), static_cast<int>(corners.size() * sizeof(Corner)));
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const Corner& first = corners[kCorners * i];
      const Corner& opposite = corners[kCorners * i + 2];
      fill(image, x + static_cast<int>(first.x), y + static_cast<int>(first.y), x + static_cast<int>(opposite.x),
           y + static_cast<int>(opposite.y), colour);
    }
    x += stb_easy_font_width(text);
    if (x >= image.width) return;
  }
}

std::vector<std::string> wrap_text(std::string_view text, int width, int most_lines) {
  if (width < kLeastWidth || most_lines < 1) fail<Error>("wrap_text: lines of ", width, " pixels are too short");
  // What can't be shown needs no looking at: no letter is narrower than a pixel.
  const size_t most = static_cast<size_t>(width) * static_cast<size_t>(most_lines) * 4;
  const std::string whole = drawable_text(text.substr(0, most));
  std::string_view rest = whole;
  std::vector<std::string> lines;
  while (!rest.empty()) {
    size_t count = letters_within(rest, width);
    if (count < rest.size() && rest[count] != ' ') {
      const size_t space = rest.substr(0, count).rfind(' ');
      if (space != std::string_view::npos && space > 0) count = space;
    }
    std::string line(rest.substr(0, count));
    rest.remove_prefix(count);
    while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
    while (!line.empty() && line.back() == ' ') line.pop_back();
    const bool last = lines.size() + 1 == static_cast<size_t>(most_lines);
    const bool left_over = !rest.empty() || (last && text.size() > most);
    lines.push_back(last && left_over ? cut_line(std::move(line), width) : std::move(line));
    if (last) break;
  }
  return lines;
}

}  // namespace mdm
