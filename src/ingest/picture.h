// A file that a server sent: whether it is a whole picture, and what of it goes into the shard.
#pragma once

#include <cstdint>
#include <string>

#include "mdm/ingest/scrape.h"

namespace mdm::ingest {

/// Why a row has no picture.
struct Failure {
  std::string cause;   ///< a word of ScrapeCounts::failures
  std::string detail;  ///< for people
};

struct Picture {
  std::string bytes;  ///< of the file for the shard
  const char* ending = "jpg";
  int width = 0, height = 0;  ///< of that file, upright
  int original_width = 0, original_height = 0;
  std::string sha256;       ///< of the file that came, in hexadecimal
  std::string file_sha256;  ///< of `bytes`
};

/// Decodes the file and makes it smaller where the settings say so. False with `failure` when it is not to be kept.
/// May be called by several threads: pictures of more than 4 million pixels are decoded one after the other.
bool check_picture(std::string file, const ScrapeSettings& settings, Picture& picture, Failure& failure);

}  // namespace mdm::ingest
