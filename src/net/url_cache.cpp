#include "mdm/net/url_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

// FNV-1a of 128 bits. It only names files: which URL a file belongs to is written beside it.
std::string hash_name(std::string_view text) {
  __extension__ using Wide = unsigned __int128;
  constexpr Wide kPrime = Wide{1} << 88 | 0x13B;
  Wide value = Wide{0x6c62272e07bb0142} << 64 | 0x62b821756295c58d;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * kPrime;
  std::string name;
  for (int shift = 124; shift >= 0; shift -= 4) name += "0123456789abcdef"[static_cast<int>(value >> shift & 15)];
  return name;
}

// The ending of a URL's last part, as far as it is a plain one: ".tar", ".tsv".
std::string ending_of(std::string_view url) {
  const std::string_view path = url.substr(0, url.find_first_of("?#"));
  const std::string_view leaf = path.substr(path.rfind('/') + 1);
  const size_t dot = leaf.rfind('.');
  if (dot == std::string_view::npos || leaf.size() - dot < 2 || leaf.size() - dot > 12) return "";
  std::string ending = ".";
  for (const char c : leaf.substr(dot + 1)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!plain) return "";
    ending += c;
  }
  return ending;
}

std::filesystem::path note_of(const std::filesystem::path& file) { return file.string() + ".url.json"; }

// Whether the file is there whole and belongs to the URL.
bool is_kept(const std::filesystem::path& file, const std::string& url) {
  std::error_code code;
  const auto size = std::filesystem::file_size(file, code);
  if (code || !std::filesystem::exists(note_of(file), code)) return false;
  try {
    const auto note =
        nlohmann::json::parse(read_text_file(note_of(file), size_t{1} << 20), nullptr, /*allow_exceptions=*/false);
    return note.is_object() && note.value("url", "") == url && note.value("bytes", uint64_t{0}) == size;
  } catch (const std::exception&) {  // unreadable, or of other types: as good as absent
    return false;
  }
}

// Held by the process that downloads a file; others wait.
class CacheLock {
 public:
  CacheLock(const std::filesystem::path& path, const std::atomic<bool>* cancel) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail(printable(path.string(), 1000), ": ", std::generic_category().message(errno));
    for (int reason = lock_file(descriptor_); reason != 0; reason = lock_file(descriptor_)) {
      if (reason == ENOTSUP) {
        exclusive_ = false;
        return;
      }
      if (cancel != nullptr && cancel->load()) {
        ::close(descriptor_);
        throw NetError(NetError::Kind::kCancelled, "waiting for another process's download: cancelled");
      }
      if (reason != EWOULDBLOCK) {
        ::close(descriptor_);
        fail(printable(path.string(), 1000), ": can't be locked: ", std::generic_category().message(reason));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  ~CacheLock() { ::close(descriptor_); }
  CacheLock(const CacheLock&) = delete;
  CacheLock& operator=(const CacheLock&) = delete;

  bool exclusive() const { return exclusive_; }  // false where the file system has no locks

 private:
  int descriptor_ = -1;
  bool exclusive_ = true;
};

// URLs may hold what lets a stranger in (signed ones do), and are written beside the files: a new folder is the
// user's own.
void make_cache_folder(const std::filesystem::path& folder) {
  std::error_code code;
  const bool fresh = !std::filesystem::exists(folder, code);
  make_writable_folder(folder);
  if (fresh) std::filesystem::permissions(folder, std::filesystem::perms::owner_all, code);
}

}  // namespace

UrlCache::UrlCache(std::filesystem::path folder, HttpOptions options)
    : folder_(std::move(folder)), options_(std::move(options)) {}

std::filesystem::path UrlCache::folder() const { return folder_.empty() ? default_cache_folder() / "urls" : folder_; }

std::filesystem::path UrlCache::path_of(const std::string& url) const {
  return folder() / (hash_name(url) + ending_of(url));
}

std::filesystem::path UrlCache::fetch(const std::string& url) {
  const auto file = path_of(url);
  if (is_kept(file, url)) return file;
  make_cache_folder(file.parent_path());
  const CacheLock lock(file.string() + ".lock", options_.cancel);
  if (!lock.exclusive() && !warned_) {
    warned_ = true;
    log_warning(printable(file.parent_path().string(), 1000),
                ": the file system has no locks; two processes must not load the same URL at a time");
  }
  if (is_kept(file, url)) return file;  // another process was quicker
  std::error_code code;
  std::filesystem::remove(note_of(file), code);
  HttpClient client(options_);
  const HttpResponse response = client.download(url, file);
  log_info("loaded ", shown_url(url), ": ", response.total_bytes.value_or(0), " bytes");
  const nlohmann::json note = {{"url", url}, {"bytes", response.total_bytes.value_or(0)}, {"etag", response.etag}};
  write_file(note_of(file), note.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return file;
}

void UrlCache::forget(const std::string& url) {
  const auto file = path_of(url);
  std::error_code code;
  std::filesystem::remove(note_of(file), code);
  std::filesystem::remove(file, code);
}

}  // namespace mdm
