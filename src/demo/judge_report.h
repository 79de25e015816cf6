// Judging all pictures of a folder, and the JSON that says how many are right.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "mdm/demo/emoji.h"

namespace mdm {

struct CaptionedFile {
  std::filesystem::path path;
  std::string caption;
};

// `where`: a folder with a lst.json as `sample` writes it, that file itself, or a folder of *.png. `prompts`: a file
// of captions, a line each, for equally many pictures each in their order; needed where there is no lst.json; "" for
// none. DataError when there are no pictures, or the numbers don't fit.
std::vector<CaptionedFile> find_pictures(const std::filesystem::path& where, const std::filesystem::path& prompts);

// Rates by split and number of objects, and why pictures failed.
std::string judge_shapes_report(const std::vector<CaptionedFile>& pictures, bool details);

// For how many pictures the nearest emoji is the named one. Captions that no emoji has are counted apart.
std::string judge_emoji_report(const std::vector<CaptionedFile>& pictures, const EmojiPictures& emoji, bool details);

}  // namespace mdm
