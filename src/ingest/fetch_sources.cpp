#include "ingest/fetch_sources.h"

#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <regex>
#include <set>
#include <system_error>

#include "mdm/config/download_config.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/net/s3.h"

namespace mdm {
namespace ingest {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostMatches = 4'000'000;  // files of one pattern
constexpr char kGlobLetters[] = "*?[\\";

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// The path of a URL or name: of http without query and fragment.
std::string_view path_part(std::string_view url) {
  return is_url(url) && !is_s3_url(url) ? url.substr(0, url.find_first_of("?#")) : url;
}

// What all keys begin with that match a regular expression.
std::string regex_prefix(const std::string& pattern) {
  if (pattern.find('|') != std::string::npos) return "";
  const size_t meta = std::min(pattern.find_first_of(".[](){}\\*+?^$"), pattern.size());
  const bool optional = meta < pattern.size() && std::string_view("*?{").find(pattern[meta]) != std::string_view::npos;
  return pattern.substr(0, optional && meta > 0 ? meta - 1 : meta);
}

std::function<bool(const std::string&)> regex_matcher(const std::string& pattern) {
  try {
    const std::regex compiled(pattern, std::regex::ECMAScript | std::regex::optimize);
    return [compiled](const std::string& key) { return std::regex_match(key, compiled); };
  } catch (const std::regex_error& error) {
    fail<ConfigError>("'", printable(pattern), "' is no regular expression: ", printable(error.what()));
  }
}

// What a pattern stands for: TSVs, or tars where there is no TSV.
std::vector<SourceFile> chosen(std::vector<SourceFile> matches, const std::string& pattern) {
  const auto is_tsv = [](const SourceFile& file) { return ends_with(file.url, ".tsv"); };
  const bool tsvs = std::any_of(matches.begin(), matches.end(), is_tsv);
  std::vector<SourceFile> kept;
  for (SourceFile& file : matches) {
    if (tsvs ? is_tsv(file) : is_tar_name(file.url)) kept.push_back(std::move(file));
  }
  if (kept.empty()) fail<DataError>(printable(pattern, 1000), ": matches no .tsv and no .tar");
  if (kept.size() < matches.size()) {
    log_info(printable(pattern, 1000), ": ", kept.size(), " of ", matches.size(), " files that match are ",
             tsvs ? "TSVs, and name the others that are needed" : "tars");
  }
  return kept;
}

std::vector<SourceFile> listed(const std::string& source, bool regex, HttpClient& client) {
  const S3Location place = parse_s3_url(source);
  const std::string root = source.substr(0, source.size() - place.key.size());
  const auto matches =
      regex ? regex_matcher(place.key) : [&place](const std::string& key) { return glob_matches(place.key, key); };
  const std::string prefix =
      regex ? regex_prefix(place.key) : place.key.substr(0, place.key.find_first_of(kGlobLetters));
  std::vector<SourceFile> found;
  client.list(concat("s3://", place.bucket, "/", prefix), [&](const S3Object& object) {
    if (object.key.back() == '/' || !matches(object.key)) return true;
    if (found.size() == kMostMatches) fail<DataError>(shown_url(source), ": matches more than ", kMostMatches, " keys");
    found.push_back({root + object.key, object.bytes, object.etag, true});
    return true;
  });
  return chosen(std::move(found), source);
}

std::vector<SourceFile> globbed(const std::string& pattern) {
  const fs::path path(pattern);
  const std::string leaf = path.filename().string();
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code code;
  std::vector<std::string> names;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    if (name[0] != '.' && glob_matches(leaf, name) && entry->is_regular_file(code)) names.push_back(name);
  }
  if (code) fail<DataError>(printable(folder.string(), 1000), ": ", code.message());
  std::sort(names.begin(), names.end());
  std::vector<SourceFile> found;
  for (const std::string& name : names) found.push_back(local_file((path.parent_path() / name).string(), true));
  return chosen(std::move(found), pattern);
}

// A glob of an s3:// URL without any of its letters is one key.
bool is_pattern(const std::string& source, bool regex) {
  if (is_s3_url(source)) return regex || parse_s3_url(source).key.find_first_of(kGlobLetters) != std::string::npos;
  std::error_code code;
  return !is_url(source) && source.find_first_of(kGlobLetters) != std::string::npos && !fs::exists(source, code);
}

std::vector<SourceFile> expand(const std::string& source, bool regex, HttpClient& client) {
  if (is_pattern(source, regex)) return is_s3_url(source) ? listed(source, regex, client) : globbed(source);
  if (is_url(source)) return {{source, std::nullopt, "", false}};
  return {local_file(source)};
}

}  // namespace

bool is_local(const std::string& url) { return !is_url(url); }

bool is_tar_name(std::string_view url) { return ends_with(path_part(url), ".tar"); }

std::string last_part(const std::string& url) {
  std::string_view path = path_part(url);
  while (ends_with(path, "/")) path.remove_suffix(1);
  const std::string_view leaf = path.substr(path.rfind('/') + 1);
  return is_url(url) && !is_s3_url(url) ? percent_decoded(leaf) : std::string(leaf);
}

std::string named_by(const std::string& list, const std::string& name) {
  if (name.empty()) fail<DataError>("a file \"\" is named");
  if (is_url(name)) return name;
  const auto from_url = file_url_path(name);
  if (is_local(list)) {
    const fs::path path = from_url.value_or(fs::path(name));
    std::error_code code;
    if (path.is_absolute() || fs::exists(path, code)) return fs::absolute(path).lexically_normal().string();
    return fs::absolute(fs::path(list).parent_path() / path).lexically_normal().string();
  }
  if (from_url || name[0] == '/' || name.find("://") != std::string::npos) {
    fail<DataError>("the list of a server names '", printable(name), "', which is no file of a server");
  }
  const std::string_view path = path_part(list);
  std::string whole(path.substr(0, path.rfind('/') + 1));
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain =
        byte > 0x20 && byte < 0x7F && std::string_view("\"<>\\^`{|}#?").find(c) == std::string_view::npos;
    if (plain || is_s3_url(list)) {
      whole += c;
    } else {
      constexpr char kDigits[] = "0123456789ABCDEF";
      whole += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return whole;
}

SourceFile local_file(const std::string& path, bool by_pattern) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    fail<DataError>(printable(path, 1000), ": ", std::generic_category().message(errno));
  }
  if (!S_ISREG(status.st_mode)) fail<DataError>(printable(path, 1000), ": is no regular file");
  return {fs::absolute(path).lexically_normal().string(), static_cast<uint64_t>(status.st_size),
          concat(status.st_mtim.tv_sec, '.', status.st_mtim.tv_nsec), by_pattern};
}

bool glob_matches(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), FNM_PATHNAME) == 0;
}

std::vector<SourceFile> expand_sources(const FetchSettings& settings, HttpClient& client) {
  std::vector<SourceFile> all;
  std::set<std::string> seen;
  for (const std::string& source : settings.sources) {
    const auto path = file_url_path(source);
    if (!path && source.find("://") != std::string::npos && !is_url(source)) {
      fail<ConfigError>(printable(source, 500), ": a path, or a URL file://, http(s):// or s3:// is expected");
    }
    for (SourceFile& file : expand(path ? path->string() : source, settings.regex, client)) {
      if (seen.insert(file.url).second) all.push_back(std::move(file));
    }
  }
  return all;
}

}  // namespace ingest

std::vector<std::string> fetch_config_sources(const std::string& configs, const std::string& subset) {
  std::vector<std::string> sources;
  for (size_t at = 0; at <= configs.size();) {
    const size_t end = std::min(configs.find(':', at), configs.size());
    if (end > at) {
      for (std::string& name : read_download_config(configs.substr(at, end - at), subset)) {
        sources.push_back(std::move(name));
      }
    }
    at = end + 1;
  }
  if (sources.empty()) fail<ConfigError>("--config: no file is named");
  return sources;
}

}  // namespace mdm
