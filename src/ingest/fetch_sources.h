// What `fetch` is asked for: names, patterns and listings made into a list of files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/ingest/fetch.h"

namespace mdm::ingest {

/// A file by its URL (http, https, s3) or local path, and what is known of it.
struct SourceFile {
  std::string url;
  std::optional<uint64_t> bytes;
  std::string etag;  ///< of a local file its time
  bool by_pattern = false;
};

bool is_local(const std::string& url);
bool is_tar_name(std::string_view url);

/// The last part of a URL's path, decoded where URLs are coded: no plain name yet.
std::string last_part(const std::string& url);

/// `name` as the list at `list` (URL or path) means it. DataError for a local name in a list from a server.
std::string named_by(const std::string& list, const std::string& name);

/// A local path as a source: its size and time. DataError when it is no regular file.
SourceFile local_file(const std::string& path, bool by_pattern = false);

/// Whether a name matches a pattern; see FetchSettings.
bool glob_matches(const std::string& pattern, const std::string& name);

/// The sources with patterns replaced by what they match, each file once. DataError when one matches nothing,
/// ConfigError, NetError.
std::vector<SourceFile> expand_sources(const FetchSettings& settings, HttpClient& client);

}  // namespace mdm::ingest
