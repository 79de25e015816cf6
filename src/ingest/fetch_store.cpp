#include "ingest/fetch_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>
#include <vector>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/utf8.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kLongestName = 200;
constexpr std::chrono::minutes kAbandoned{10};  // that nobody has written to a temporary file

// What the job itself writes: index.tsv, index.3.tsv, failures.tsv.
bool is_reserved(const std::string& name) {
  for (const std::string_view own : {"index", "failures"}) {
    if (name.compare(0, own.size(), own) != 0) continue;
    const std::string rest = name.substr(own.size());
    if (rest == ".tsv") return true;
    const size_t dot = rest.find_last_of('.');
    if (rest.size() > 5 && rest[0] == '.' && rest.substr(dot) == ".tsv" &&
        rest.substr(1, dot - 1).find_first_not_of("0123456789") == std::string::npos) {
      return true;
    }
  }
  return false;
}

// Null for what is absent or no note.
json read_note(const fs::path& file) {
  std::error_code code;
  if (!fs::exists(file, code)) return nullptr;
  try {
    return json::parse(read_text_file(file, size_t{1} << 20), nullptr, /*allow_exceptions=*/false);
  } catch (const Error&) {
    return nullptr;
  }
}

// The text of a member, or "": notes may be damaged.
std::string text_of(const json& note, const char* member) {
  if (!note.is_object() || !note.contains(member) || !note[member].is_string()) return {};
  return note[member].get<std::string>();
}

// URLs may hold bytes that are not UTF-8.
std::string noted(const std::string& url) { return is_utf8(url) ? url : "hex:" + to_hex(url); }

// Without quotes, which not every listing has.
std::string bare(std::string etag) {
  etag.erase(std::remove(etag.begin(), etag.end(), '"'), etag.end());
  return is_utf8(etag) ? etag : "";
}

void write_note(const fs::path& file, const json& note) { write_file(file, note.dump()); }

// What processes that were killed have left of files of these names (see AtomicFile). Others may be at it just now.
void remove_abandoned(const fs::path& folder, const std::function<bool(const std::string&)>& is_ours) {
  std::error_code code;
  std::vector<fs::path> old;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    const size_t mark = name.rfind(".tmp.");
    if (mark == std::string::npos || name.find_first_not_of("0123456789.", mark + 5) != std::string::npos) continue;
    std::error_code gone;
    const auto written = entry->last_write_time(gone);
    if (gone || fs::file_time_type::clock::now() - written < kAbandoned) continue;
    if (is_ours(name.substr(0, mark))) old.push_back(entry->path());
  }
  for (const fs::path& file : old) fs::remove(file, code);
}

}  // namespace

std::string plain_name(std::string_view leaf, std::string_view ending) {
  std::string stem(leaf.substr(leaf.find_last_of("/\\") + 1));  // +1 of npos: all of it
  if (stem.size() >= ending.size() && stem.compare(stem.size() - ending.size(), ending.size(), ending) == 0) {
    stem.resize(stem.size() - ending.size());
  }
  std::string name;
  for (size_t i = 0; i < stem.size() && name.size() < kLongestName;) {
    const size_t length = utf8_length(std::string_view(stem).substr(i));
    const auto byte = static_cast<unsigned char>(stem[i]);
    const bool bad = length == 0 || byte < 0x20 || byte == 0x7F || (byte == 0xC2 && (stem[i + 1] & 0xE0) == 0x80) ||
                     stem[i] == '"' || (stem[i] == '.' && !name.empty() && name.back() == '.');
    if (bad) {
      name += '_';
    } else {
      name += stem.substr(i, length);
    }
    i += std::max<size_t>(length, 1);
  }
  if (!name.empty() && name.back() == '.') name.back() = '_';  // with the ending's there would be two
  const size_t first = name.find_first_not_of(". ");
  name = first == std::string::npos ? "shard" : name.substr(first);
  if (name[0] == '-') name[0] = '_';  // programs would take it for a flag
  return name + std::string(ending);
}

FetchStore::FetchStore(fs::path folder, const std::atomic<bool>& cancel)
    : folder_(std::move(folder)), hidden_(folder_ / ".fetch"), cancel_(cancel) {
  for (const fs::path& place : {folder_, hidden_, hidden_ / "lists", hidden_ / "locks"}) make_writable_folder(place);
  for (const fs::path& own : {hidden_, hidden_ / "lists"}) {
    remove_abandoned(own, [](const std::string&) { return true; });
  }
  remove_abandoned(folder_, [this](std::string name) {
    constexpr std::string_view kPartNote = ".part.json";
    const size_t part = name.rfind(kPartNote);
    if (part != std::string::npos && part + kPartNote.size() == name.size()) name.resize(part);
    std::error_code code;
    return is_reserved(name) || fs::exists(note(name), code);
  });
}

std::string FetchStore::claim(const std::string& url, std::string_view ending) {
  const std::lock_guard guard(mutex_);
  const auto known = names_.find(url);
  if (known != names_.end()) return known->second;
  const Lock lock(hidden_ / "lock", cancel_);
  const std::string plain = plain_name(last_part(url), ending);
  const std::string stem = plain.substr(0, plain.size() - ending.size()), hash = sha256_hex(url);
  for (const size_t digits : {0, 8, 16, 64}) {
    const std::string name = digits == 0 ? plain : concat(stem, '-', hash.substr(0, digits), ending);
    if (take(name, url)) return names_[url] = name;
  }
  fail(printable(folder_.string(), 1000), ": there is no name left for ", shown_url(url));
}

bool FetchStore::take(const std::string& name, const std::string& url) {
  if (is_reserved(name)) return false;
  std::error_code code;
  if (fs::exists(note(name), code)) return text_of(read_note(note(name)), "url") == noted(url);
  if (fs::exists(fs::symlink_status(output(name), code))) return false;  // someone else's
  write_note(note(name), {{"url", noted(url)}});
  return true;
}

bool FetchStore::is_complete(const std::string& name, const fs::path& file, const SourceFile& source) const {
  std::error_code code;
  const auto size = fs::file_size(file, code);
  if (code || (source.bytes && *source.bytes != size)) return false;
  const json known = read_note(note(name));
  if (!known.is_object() || text_of(known, "url") != noted(source.url)) return false;
  if (known.value("complete", json()) != json(true) || known.value("bytes", json()) != json(size)) return false;
  return source.etag.empty() || text_of(known, "etag") == bare(source.etag);
}

void FetchStore::set_complete(const std::string& name, const SourceFile& source, uint64_t bytes,
                              const std::string& etag) {
  write_note(note(name), {{"url", noted(source.url)}, {"bytes", bytes}, {"etag", bare(etag)}, {"complete", true}});
}

void FetchStore::set_incomplete(const std::string& name, const SourceFile& source) {
  write_note(note(name), {{"url", noted(source.url)}});
}

FetchStore::Lock::Lock(const fs::path& path, const std::atomic<bool>& cancel) {
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor_ < 0) fail(printable(path.string(), 1000), ": ", std::generic_category().message(errno));
  for (int reason = lock_file(descriptor_); reason != 0 && reason != ENOTSUP; reason = lock_file(descriptor_)) {
    const bool cancelled = cancel.load();
    if (!cancelled && reason == EWOULDBLOCK) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    ::close(descriptor_);
    if (cancelled) throw NetError(NetError::Kind::kCancelled, "waiting for another process: cancelled");
    fail(printable(path.string(), 1000), ": can't be locked: ", std::generic_category().message(reason));
  }
}

FetchStore::Lock::~Lock() { ::close(descriptor_); }

}  // namespace mdm::ingest
