// Files named by URLs, kept in a folder of the user's.
#pragma once

#include <filesystem>
#include <string>

#include "mdm/core/cache_folder.h"
#include "mdm/net/http_client.h"

namespace mdm {

/// From a URL to a local file. A file is there complete or not at all; its name is a hash of the URL and the
/// ending of the URL's last part. A folder that is made for it is its owner's alone. Several processes may ask for the
/// same URL: one downloads, the others wait (where the file system has locks).
class UrlCache {
 public:
  /// `folder`: ReaderConfig::cache_dir; empty: "urls" in default_cache_folder(). Nothing is made or looked for
  /// before it is needed.
  explicit UrlCache(std::filesystem::path folder = {}, HttpOptions options = {});

  /// The local file, downloaded when it is not there or has another size than was noted when it was. A kept file
  /// is not compared with the server's: a URL is taken to mean the same bytes for ever. NetError, Error, and
  /// ConfigError as default_cache_folder().
  std::filesystem::path fetch(const std::string& url);
  /// Where the file is or would be.
  std::filesystem::path path_of(const std::string& url) const;
  /// Drops a file that turned out to be damaged; the next fetch() downloads it again.
  void forget(const std::string& url);

  /// ConfigError as default_cache_folder().
  std::filesystem::path folder() const;

 private:
  std::filesystem::path folder_;  // empty: the default one
  HttpOptions options_;
  bool warned_ = false;  // that there are no locks
};

}  // namespace mdm
