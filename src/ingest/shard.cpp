#include "ingest/shard.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ingest/shown.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/data/tar.h"
#include "mdm/data/tsv.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kStatsFormat = 1;
constexpr size_t kMostStatsBytes = size_t{1} << 20;
constexpr size_t kMostJsonBytes = size_t{1} << 24;

std::string reason() { return std::generic_category().message(errno); }
std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string numbered(const char* format, uint64_t number) {
  char text[32];
  std::snprintf(text, sizeof text, format, static_cast<unsigned long long>(number));
  return text;
}

int open_file(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor < 0) fail(shown(path), ": can't be opened: ", reason());
  return descriptor;
}

void remove_file(const fs::path& path) {
  std::error_code code;
  fs::remove(path, code);
  if (code) fail(shown(path), ": can't be removed: ", code.message());
}

void rename_file(const fs::path& from, const fs::path& to) {
  std::error_code code;
  fs::rename(from, to, code);
  if (code) fail(shown(from), ": can't be renamed: ", code.message());
}

void flush_names(const fs::path& file) {
  const int code = flush_folder(file.parent_path());
  if (code != 0) fail(shown(file.parent_path()), ": can't be flushed: ", std::generic_category().message(code));
}

// A picture in the part file: three members behind each other.
struct Stored {
  uint64_t row = 0;
  const TarMember* image = nullptr;
  Json about;
  uint64_t end = 0;  // in the archive
};

// The picture whose members begin at number `i`; false when they are not what add() writes for one of these rows.
class PartReader {
 public:
  PartReader(const fs::path& path, int descriptor, const ShardRows& rows)
      : index_(TarIndex::build(
            [descriptor](uint64_t offset, void* target, size_t count) {
              return read_at(descriptor, target, count, offset) == static_cast<int64_t>(count);
            },
            static_cast<uint64_t>(std::max<off_t>(::lseek(descriptor, 0, SEEK_END), 0)), path.string())),
        descriptor_(descriptor),
        rows_(rows) {}

  size_t count() const { return index_.members().size() / 3; }

  bool read(size_t number, Stored& stored) const {
    const auto& members = index_.members();
    const TarMember &image = members[3 * number], &text = members[3 * number + 1], &about = members[3 * number + 2];
    const std::string key = image.name.substr(0, image.name.find('.'));
    if (text.name != key + ".txt" || about.name != key + ".json" || about.size > kMostJsonBytes) return false;
    char* end = nullptr;
    stored.row = std::strtoull(key.c_str(), &end, 10);
    if (end == key.c_str() || *end != '\0' || key != key_of(stored.row)) return false;
    if (stored.row < rows_.first || stored.row - rows_.first >= rows_.rows) return false;
    std::string json(about.size, '\0');
    if (!bytes(about, json)) return false;
    stored.about = Json::parse(json, nullptr, /*allow_exceptions=*/false);
    if (!stored.about.is_object()) return false;
    for (const char* name : {"sha256", "file_sha256", "caption"}) {
      const auto found = stored.about.find(name);
      if (found == stored.about.end() || !found->is_string()) return false;
    }
    stored.image = &image;
    stored.end = about.offset + (about.size + 511) / 512 * 512;
    return true;
  }

  bool is_whole(const Stored& stored) const {
    std::string content(stored.image->size, '\0');
    return bytes(*stored.image, content) && sha256_hex(content) == stored.about.at("file_sha256").get<std::string>();
  }

 private:
  bool bytes(const TarMember& member, std::string& content) const {
    return read_at(descriptor_, content.data(), content.size(), member.offset) == static_cast<int64_t>(content.size());
  }

  TarIndex index_;
  int descriptor_;
  ShardRows rows_;
};

// Lines of a journal up to the first that is broken, and where they end.
template <typename Take>
uint64_t read_journal(const std::string& text, const ShardRows& rows, const Take& take) {
  size_t at = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; at = end + 1, end = text.find('\n', at)) {
    const Json entry = Json::parse(text.begin() + static_cast<ptrdiff_t>(at),
                                   text.begin() + static_cast<ptrdiff_t>(end), nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object() || !entry.contains("row") || !entry["row"].is_number_unsigned()) break;
    const auto row = entry["row"].get<uint64_t>();
    if (row < rows.first || row - rows.first >= rows.rows) break;
    bool whole = true;
    for (const char* name : {"url", "caption", "cause", "detail"})
      whole &= entry.contains(name) && entry[name].is_string();
    if (!whole) break;
    take(row, entry);
  }
  return at;
}

std::string journal_line(uint64_t row, const std::string& url, const std::string& caption, const Failure& failure) {
  return dumped(
             {{"row", row}, {"url", url}, {"caption", caption}, {"cause", failure.cause}, {"detail", failure.detail}}) +
         '\n';
}

std::string text_of(const Json& entry, const char* name) { return entry.at(name).get<std::string>(); }

}  // namespace

ShardFiles::ShardFiles(const fs::path& folder, uint64_t number) : folder_(folder), name_(numbered("%05llu", number)) {}

std::string key_of(uint64_t row) { return numbered("%09llu", row); }

bool read_finished(const ShardFiles& files, const ShardRows& rows, ScrapeCounts& counts) {
  std::error_code ignored;
  if (!fs::exists(files.stats(), ignored)) return false;
  const Json stats = Json::parse(read_text_file(files.stats(), kMostStatsBytes), nullptr, /*allow_exceptions=*/false);
  try {
    if (stats.at("format") != kStatsFormat || stats.at("first_row") != rows.first || stats.at("rows") != rows.rows) {
      return false;
    }
    counts = {};
    counts.rows = rows.rows;
    counts.pictures = stats.at("pictures").get<uint64_t>();
    counts.picture_bytes = stats.at("picture_bytes").get<uint64_t>();
    counts.failures = stats.at("failures").get<std::map<std::string, uint64_t>>();
    return fs::exists(files.tar(), ignored) && fs::exists(files.list(), ignored);
  } catch (const Json::exception&) {
    return false;
  }
}

void drop_leftovers(const ShardFiles& files) {
  std::error_code ignored;
  if (fs::exists(files.journal(), ignored)) remove_file(files.journal());
}

void reopen(const ShardFiles& files, const ShardRows& rows, bool (*again)(const std::string& cause)) {
  const std::string text = read_text_file(files.failures());
  TsvReader reader(text, files.failures().string());
  const size_t key = reader.require("key"), url = reader.require("url"), caption = reader.require("caption"),
               cause = reader.require("cause"), detail = reader.require("detail");
  std::vector<std::string> fields;
  std::string journal;
  bool any = false;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    if (result == TsvReader::Result::kBad) fail<DataError>(reader.problem());
    const uint64_t row = std::strtoull(fields[key].c_str(), nullptr, 10);
    if (again(fields[cause])) {
      any = true;
    } else {
      journal += journal_line(row, fields[url], fields[caption], {fields[cause], fields[detail]});
    }
  }
  if (!any || rows.rows == 0) return;
  // In this order a shard is whole at every moment: finished until its stats are gone, and open from there on.
  write_file(files.journal(), journal);
  remove_file(files.stats());
  flush_names(files.stats());
  rename_file(files.tar(), files.part());
  for (const auto& file : {files.list(), files.failures(), files.train(), files.validation()}) remove_file(file);
}

OpenShard::OpenShard(const fs::path& folder, const ShardRows& rows)
    : files_(folder, rows.number), rows_(rows), done_(rows.rows, false), left_(rows.rows) {
  counts_.rows = rows.rows;
  std::error_code ignored;
  if (!fs::exists(files_.part(), ignored) && fs::exists(files_.tar(), ignored)) {
    rename_file(files_.tar(), files_.part());  // all but the stats was there
  }
  part_ = open_file(files_.part());
  journal_ = open_file(files_.journal());
  recover_pictures();
  recover_failures();
}

OpenShard::~OpenShard() {
  ::close(part_);
  ::close(journal_);
}

void OpenShard::mark(uint64_t row) {
  done_[row - rows_.first] = true;
  --left_;
}

void OpenShard::recover_pictures() {
  const off_t size = ::lseek(part_, 0, SEEK_END);
  try {
    if (size > 0) {
      const PartReader reader(files_.part(), part_, rows_);
      Stored stored;
      for (size_t i = 0; i < reader.count() && reader.read(i, stored) && reader.is_whole(stored); ++i) {
        if (is_done(stored.row)) break;
        mark(stored.row);
        ++counts_.pictures;
        counts_.picture_bytes += stored.image->size;
        digests_.push_back(text_of(stored.about, "sha256"));
        part_size_ = stored.end;
      }
    }
  } catch (const DataError& error) {  // not even one header
    log_debug(error.what(), "; this shard begins anew");
  }
  if (::ftruncate(part_, static_cast<off_t>(part_size_)) != 0) fail(shown(files_.part()), ": can't be cut: ", reason());
}

void OpenShard::recover_failures() {
  const std::string text = read_text_file(files_.journal());
  journal_size_ = read_journal(text, rows_, [this](uint64_t row, const Json& entry) {
    if (is_done(row)) return;
    mark(row);
    ++counts_.failures[text_of(entry, "cause")];
  });
  if (::ftruncate(journal_, static_cast<off_t>(journal_size_)) != 0) {
    fail(shown(files_.journal()), ": can't be cut: ", reason());
  }
}

void OpenShard::append(int descriptor, uint64_t& size, const std::string& bytes, const fs::path& path) {
  if (!write_at(descriptor, bytes.data(), bytes.size(), size)) {
    const std::string why = reason();
    // A tail that stays is dropped by the next start as well.
    if (::ftruncate(descriptor, static_cast<off_t>(size)) != 0) log_debug(shown(path), ": can't be cut");
    fail(shown(path), ": can't be written: ", why);
  }
  size += bytes.size();
}

void OpenShard::add(const UrlRow& row, const std::string& last_url, const Picture& picture) {
  const std::string key = key_of(row.number);
  // `sha256` is of the file that came (as img2dataset has it), `file_sha256` of the one in here.
  const Json about = {{"key", key},
                      {"url", row.url},
                      {"last_url", last_url},
                      {"caption", row.caption},
                      {"width", picture.width},
                      {"height", picture.height},
                      {"original_width", picture.original_width},
                      {"original_height", picture.original_height},
                      {"sha256", picture.sha256},
                      {"file_sha256", picture.file_sha256},
                      {"status", "success"}};
  std::string members;
  members.reserve(picture.bytes.size() + 4096 + 2 * row.caption.size());
  append_tar_member(members, key + '.' + picture.ending, picture.bytes);
  append_tar_member(members, key + ".txt", row.caption);
  append_tar_member(members, key + ".json", dumped(about));
  append(part_, part_size_, members, files_.part());
  mark(row.number);
  ++counts_.pictures;
  counts_.picture_bytes += picture.bytes.size();
}

void OpenShard::fail_row(const UrlRow& row, const Failure& failure) {
  append(journal_, journal_size_, journal_line(row.number, row.url, row.caption, failure), files_.journal());
  mark(row.number);
  ++counts_.failures[failure.cause];
}

namespace {

std::string picture_list(const fs::path& part, int descriptor, const ShardRows& rows, const std::string& tar_name) {
  std::map<uint64_t, std::string> lines;
  const PartReader reader(part, descriptor, rows);
  Stored stored;
  for (size_t i = 0; i < reader.count(); ++i) {
    if (!reader.read(i, stored))
      fail<DataError>(shown(part), ": holds what was not written; another program changes it");
    std::string& line = lines[stored.row];
    for (const std::string& field : {tar_name, stored.image->name, text_of(stored.about, "caption")}) {
      line += tsv_field(field) + '\t';
    }
    line += concat(stored.about.value("width", 0), '\t', stored.about.value("height", 0), '\t',
                   tsv_field(text_of(stored.about, "sha256")), '\n');
  }
  std::string text = "tar\tfile\tcaption\twidth\theight\tsha256\n";
  for (const auto& [row, line] : lines) text += line;
  return text;
}

std::string failure_list(const std::string& journal, const ShardRows& rows) {
  std::map<uint64_t, std::string> lines;
  read_journal(journal, rows, [&lines](uint64_t row, const Json& entry) {
    std::string line = key_of(row);
    for (const char* name : {"url", "caption", "cause", "detail"}) line += '\t' + tsv_field(text_of(entry, name));
    lines[row] = line + '\n';
  });
  std::string text = "key\turl\tcaption\tcause\tdetail\n";
  for (const auto& [row, line] : lines) text += line;
  return text;
}

}  // namespace

void OpenShard::finish() {
  // The lists are made from what is in the files, so that they tell the same after any number of restarts.
  const std::string pictures = part_size_ == 0
                                   ? "tar\tfile\tcaption\twidth\theight\tsha256\n"
                                   : picture_list(files_.part(), part_, rows_, files_.tar().filename().string());
  const std::string failures = failure_list(read_text_file(files_.journal()), rows_);
  append(part_, part_size_, std::string(tar_end()), files_.part());
  if (::fsync(part_) != 0) fail(shown(files_.part()), ": can't be written: ", reason());
  write_file(files_.list(), pictures);
  write_file(files_.failures(), failures);
  rename_file(files_.part(), files_.tar());
  flush_names(files_.tar());
  const Json stats = {{"format", kStatsFormat},
                      {"first_row", rows_.first},
                      {"rows", rows_.rows},
                      {"pictures", counts_.pictures},
                      {"picture_bytes", counts_.picture_bytes},
                      {"failures", counts_.failures}};
  write_file(files_.stats(), stats.dump(2) + '\n');
  remove_file(files_.journal());
}

}  // namespace mdm::ingest
