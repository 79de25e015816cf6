// A page that shows a folder of pictures with their captions, and the list of them for programs.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mdm {

struct GalleryItem {
  std::string path;     ///< of the picture, relative to the page
  std::string caption;  ///< any bytes; shown as text
};

/// `[[path, caption], ...]`, one pair a line, UTF-8; other bytes become U+FFFD.
std::string gallery_json(const std::vector<GalleryItem>& items);

/// A page without parts of its own elsewhere: light and dark, usable by keyboard (Tab, Enter, arrows, Escape),
/// every caption and path escaped.
std::string gallery_html(const std::vector<GalleryItem>& items, const std::string& title);

/// Writes index.html and lst.json into the folder. Absolute paths become relative to it.
void write_gallery(const std::filesystem::path& folder, std::vector<GalleryItem> items, const std::string& title);

}  // namespace mdm
