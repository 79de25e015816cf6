// Lists of URLs with captions, as they are published: read row by row, however long.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "mdm/ingest/scrape.h"

namespace mdm::ingest {

struct UrlRow {
  uint64_t number = 0;  ///< from 0
  std::string url;
  std::string caption;
  std::string problem;  ///< why it is no row; then the others are empty
};

/// Reads a list from its beginning. Memory: one row (of at most kMostRowBytes). Where quotes don't make sense in a row
/// they are taken as they are, in this row alone.
class UrlList {
 public:
  static constexpr size_t kMostRowBytes = size_t{16} << 20;

  /// ConfigError when the columns are not there, DataError when the file can't be read.
  UrlList(const std::filesystem::path& file, const UrlListFormat& format);

  /// False at the end.
  bool next(UrlRow& row);

 private:
  void read_header();
  bool read_record(std::string& record, bool quotes);
  bool split(const std::string& record, bool quotes, std::vector<std::string>& fields) const;
  void take_json(const std::string& record, UrlRow& row) const;

  std::filesystem::path path_;
  UrlListFormat format_;
  std::ifstream in_;
  std::vector<char> buffer_;
  char separator_ = '\t';
  bool json_ = false;
  bool quotes_ = false;
  bool too_long_ = false;
  size_t url_column_ = 0, caption_column_ = 1, columns_ = 2;
  bool rest_is_caption_ = false;
  std::optional<std::string> first_record_;  // of a list without header
  std::streamoff second_line_ = -1;          // of a record of several lines: where that begins
  uint64_t rows_ = 0;
};

}  // namespace mdm::ingest
