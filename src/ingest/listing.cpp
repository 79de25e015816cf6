#include "ingest/listing.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "ingest/shown.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/net/http_client.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;

bool ends_in_tar(std::string_view name) { return name.size() >= 4 && name.substr(name.size() - 4) == ".tar"; }

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool was_stopped(const std::exception& error) {
  const auto* net = dynamic_cast<const NetError*>(&error);
  return net != nullptr && net->kind() == NetError::Kind::kCancelled;
}

}  // namespace

std::string list_of(const std::string& list) {
  std::error_code ignored;
  if (!fs::is_directory(list, ignored)) return list;
  const fs::path index = fs::path(list) / "index.tsv";
  return is_there(index) ? index.string() : list;
}

bool is_scraped(const std::string& list) {
  const fs::path index = list_of(list);
  return index.filename() == "index.tsv" && is_there(index) && is_there(index.parent_path() / "scrape.json");
}

Listing::Listing(ResolveUrl resolve_url, FaultSink sink)
    : resolve_url_(std::move(resolve_url)), sink_(std::move(sink)) {}

void Listing::add(const std::string& given) {
  const std::string list = list_of(given);
  std::error_code ignored;
  if (fs::is_directory(list, ignored)) return add_folder(list);
  if (ends_in_tar(list)) return add_web(list, {});
  add_tsv(list, {});
}

void Listing::add_folder(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    std::error_code ignored;
    const std::string name = entry->path().string();
    if (ends_in_tar(name) && entry->is_regular_file(ignored)) names.push_back(name);
  }
  if (code) sink_({"list", folder, "", "the folder can't be read: " + code.message()});
  if (names.empty()) return sink_({"list", folder, "", "there is no .tar file in this folder"});
  std::sort(names.begin(), names.end());
  for (const auto& name : names) add_web(name, {});
}

void Listing::add_tsv(const std::string& list, const Place& above) {
  try {
    std::string url;
    const fs::path file = local(list, above, &url);
    const auto bytes = FileBytes::open(file, FileBytes::Mode::kRead);
    TsvReader reader(bytes->view(), list);
    Place place;
    if (url.empty()) {
      place.folder = file.parent_path();
    } else {
      const std::string path = url.substr(0, url.find_first_of("?#"));
      place.url_folder = path.substr(0, path.rfind('/') + 1);
    }
    // An index names lists, and these name no further ones.
    const bool index = above.folder.empty() && above.url_folder.empty() && reader.find("filename") >= 0;
    if (index) return add_index(reader, list, place);
    add_rows(reader, list, place, above.folder.empty() ? nullptr : &above);
  } catch (const Error& error) {
    if (was_stopped(error)) throw;
    sink_({"list", list, "", error.what()});
  }
}

void Listing::add_index(TsvReader& reader, const std::string& list, const Place& place) {
  const size_t column = reader.require("filename");
  // "" has no parent: what an index in the working directory names must still count as named by an index.
  Place above = place;
  if (above.folder.empty() && above.url_folder.empty()) above.folder = ".";
  std::vector<std::string> fields;
  bool any = false;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    if (result == TsvReader::Result::kBad) {
      sink_({"line", list, "", reader.problem()});
      continue;
    }
    any = true;
    if (ends_in_tar(fields[column])) {
      add_web(fields[column], above);
    } else {
      add_tsv(fields[column], above);
    }
  }
  if (!any) sink_({"list", list, "", "names no shard"});
}

void Listing::add_rows(TsvReader& reader, const std::string& list, const Place& place, const Place* index) {
  const size_t tar = reader.require("tar"), file = reader.require("file"), caption = reader.require("caption");
  std::vector<std::string> fields;
  bool any = false;
  std::string last_name;
  size_t last = 0;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    if (result == TsvReader::Result::kBad) {
      sink_({"line", list, "", reader.problem()});
      continue;
    }
    if (!any || fields[tar] != last_name) {
      last = archive_of(fields[tar], place, index);
      last_name = fields[tar];
    }
    any = true;
    ListedArchive& archive = archives_[last];
    archive.rows.push_back({archive.texts.size(), static_cast<uint32_t>(fields[file].size()),
                            static_cast<uint32_t>(fields[caption].size())});
    archive.texts += fields[file];
    archive.texts += fields[caption];
  }
  if (!any) sink_({"list", list, "", "has no rows"});
}

void Listing::add_web(const std::string& name, const Place& place) {
  ListedArchive& archive = archives_[archive_of(name, place, nullptr)];
  if (archive.web) sink_({"duplicate", name, "", "the archive is listed twice"});
  archive.web = true;
}

fs::path Listing::local(const std::string& name, const Place& place, std::string* url) const {
  if (name.empty()) fail<DataError>("a list names a file \"\"");
  if (is_url(name) || (!place.url_folder.empty() && name[0] != '/')) {
    const std::string whole = is_url(name) ? name : place.url_folder + name;
    if (!resolve_url_) fail<DataError>(shown_url(whole), ": URLs can't be read here");
    if (url != nullptr) *url = whole;
    return resolve_url_(whole);
  }
  const fs::path here(name);
  if (here.is_absolute() || place.folder.empty() || is_there(here)) return here;
  const fs::path beside = place.folder / here;
  return is_there(beside) ? beside : here;
}

size_t Listing::archive_of(const std::string& name, const Place& place, const Place* index) {
  const Place* chosen = &place;
  if (index != nullptr && !is_url(name) && !is_there(name) && !is_there(place.folder / name) &&
      is_there(index->folder / name)) {
    chosen = index;
  }
  const std::string key = concat(chosen->url_folder, '\n', chosen->folder.string(), '\n', name);
  const auto [known, fresh] = numbers_.try_emplace(key, archives_.size());
  if (!fresh) return known->second;
  ListedArchive archive;
  archive.name = name;
  try {
    archive.path = local(name, *chosen, nullptr);
    const fs::path whole = fs::absolute(archive.path).lexically_normal();
    const auto [found, added] = numbers_by_path_.try_emplace(whole, archives_.size());
    if (!added) return known->second = found->second;
  } catch (const Error& error) {
    if (was_stopped(error)) throw;
    archive.problem = error.what();
  }
  archives_.push_back(std::move(archive));
  return known->second;
}

}  // namespace mdm::ingest
