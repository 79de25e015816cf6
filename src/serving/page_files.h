// The files of the page, which are part of the program: nothing is read from disk, whatever a request says.
#pragma once

#include <string_view>
#include <vector>

namespace mdm::serving {

struct PageFile {
  std::string_view path;  // "/page.css"; "/" is the page itself
  std::string_view type;  // of its content
  std::string_view bytes;
};

// Made at build time from the folder page/ (EmbedPage.cmake).
const std::vector<PageFile>& page_files();

}  // namespace mdm::serving
