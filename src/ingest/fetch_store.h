// The folder that `fetch` fills: which name belongs to which URL, and what is complete. Several processes may share it.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "ingest/fetch_sources.h"

namespace mdm::ingest {

/// A plain file name out of whatever `leaf` holds, with `ending` (".tar") at its end: UTF-8, at most some 200 bytes,
/// without '/', "..", control characters, quotes or a leading dot; "shard" where nothing remains.
std::string plain_name(std::string_view leaf, std::string_view ending);

/// Functions may be called by several threads. Error when files can't be written.
class FetchStore {
 public:
  /// Makes the folder. `cancel` ends waiting for other processes.
  FetchStore(std::filesystem::path folder, const std::atomic<bool>& cancel);

  /// The name that belongs to the URL from now on. A name that another URL or a file of someone else's has is not
  /// taken.
  std::string claim(const std::string& url, std::string_view ending);

  std::filesystem::path output(const std::string& name) const { return folder_ / name; }
  std::filesystem::path list(const std::string& name) const { return hidden_ / "lists" / name; }

  /// Whether `file` is there whole, and still that of the source as far as that is known.
  bool is_complete(const std::string& name, const std::filesystem::path& file, const SourceFile& source) const;
  void set_complete(const std::string& name, const SourceFile& source, uint64_t bytes, const std::string& etag);
  void set_incomplete(const std::string& name, const SourceFile& source);

  /// Held by the process that writes a file; others wait. NetError (kCancelled).
  class Lock {
   public:
    Lock(const std::filesystem::path& path, const std::atomic<bool>& cancel);
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    int descriptor_ = -1;
  };
  Lock lock(const std::string& name) const { return Lock(hidden_ / "locks" / name, cancel_); }

 private:
  std::filesystem::path note(const std::string& name) const { return hidden_ / (name + ".json"); }
  bool take(const std::string& name, const std::string& url);

  std::filesystem::path folder_, hidden_;
  const std::atomic<bool>& cancel_;
  std::mutex mutex_;
  std::map<std::string, std::string> names_;  // by URL
};

}  // namespace mdm::ingest
