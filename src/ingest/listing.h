// What lists name, read so that one fault does not hide the next.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/data/tsv.h"
#include "mdm/ingest/survey.h"

namespace mdm::ingest {

using FaultSink = std::function<void(Fault)>;

/// A row of a shard TSV.
struct ListedRow {
  uint64_t text = 0;  ///< in ListedArchive::texts: the file name and behind it the caption
  uint32_t file_bytes = 0;
  uint32_t caption_bytes = 0;
};

/// An archive with the rows that name members of it.
struct ListedArchive {
  std::string name;  ///< as the list has it
  std::filesystem::path path;
  std::string problem;  ///< why there is no path
  bool web = false;     ///< it tells its samples itself
  std::vector<ListedRow> rows;
  std::string texts;

  std::string_view file(const ListedRow& row) const { return {texts.data() + row.text, row.file_bytes}; }
  std::string_view caption(const ListedRow& row) const {
    return {texts.data() + row.text + row.file_bytes, row.caption_bytes};
  }
};

/// Reads lists by the rules of Dataset::open; what that would end at goes to the sink.
class Listing {
 public:
  using ResolveUrl = std::function<std::filesystem::path(const std::string& url)>;
  Listing(ResolveUrl resolve_url, FaultSink sink);

  /// `list` as in SurveySettings::lists.
  void add(const std::string& list);

  std::vector<ListedArchive>& archives() { return archives_; }

 private:
  // Where a list came from: names in it may be relative to this.
  struct Place {
    std::string url_folder;  // "https://host/folder/"; empty for local lists
    std::filesystem::path folder;
  };

  void add_folder(const std::string& folder);
  void add_tsv(const std::string& list, const Place& above);
  void add_index(TsvReader& reader, const std::string& list, const Place& place);
  void add_rows(TsvReader& reader, const std::string& list, const Place& place, const Place* index);
  void add_web(const std::string& name, const Place& place);
  std::filesystem::path local(const std::string& name, const Place& place, std::string* url) const;
  size_t archive_of(const std::string& name, const Place& place, const Place* index);

  ResolveUrl resolve_url_;
  FaultSink sink_;
  std::vector<ListedArchive> archives_;
  std::map<std::string, size_t> numbers_;                    // by place and name
  std::map<std::filesystem::path, size_t> numbers_by_path_;  // the same file under two names is one archive
};

/// The list that stands for `list`: a folder's index.tsv where it has one, else itself.
std::string list_of(const std::string& list);
/// Whether it is a folder that `scrape` wrote (its index.tsv, or the folder).
bool is_scraped(const std::string& list);

}  // namespace mdm::ingest
