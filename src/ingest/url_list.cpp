#include "ingest/url_list.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ingest/shown.h"
#include "mdm/core/error.h"
#include "mdm/data/tsv.h"

namespace mdm::ingest {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 18;

UrlListFormat::Kind kind_of(const std::filesystem::path& path, UrlListFormat::Kind kind) {
  if (kind != UrlListFormat::Kind::kByName) return kind;
  const std::string ending = path.extension().string();
  if (ending == ".csv") return UrlListFormat::Kind::kCsv;
  if (ending == ".jsonl" || ending == ".ndjson" || ending == ".json") return UrlListFormat::Kind::kJsonLines;
  return UrlListFormat::Kind::kTsv;
}

// Whether a quoted field is open at the record's end, so that it goes on in the next line. Quotes open fields only at
// their beginning.
bool is_open(const std::string& record, char separator) {
  size_t at = 0;
  while (at < record.size()) {
    if (record[at] == '"') {
      do {
        at = record.find('"', at + 1);
        if (at == std::string::npos) return true;
        ++at;
      } while (at < record.size() && record[at] == '"');
    }
    at = record.find(separator, at);
    if (at == std::string::npos) return false;
    ++at;
  }
  return false;
}

}  // namespace

UrlList::UrlList(const std::filesystem::path& file, const UrlListFormat& format)
    : path_(file), format_(format), buffer_(kBufferBytes) {
  if (!std::filesystem::is_regular_file(file)) fail<DataError>(shown(file), ": there is no such file");
  in_.rdbuf()->pubsetbuf(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  in_.open(file, std::ios::binary);
  if (!in_) fail<DataError>(shown(file), ": can't be read");
  const UrlListFormat::Kind kind = kind_of(file, format.kind);
  json_ = kind == UrlListFormat::Kind::kJsonLines;
  separator_ = kind == UrlListFormat::Kind::kCsv ? ',' : '\t';
  if (!json_) read_header();
}

void UrlList::read_header() {
  std::string record;
  if (!read_record(record, /*quotes=*/false)) fail<DataError>(shown(path_), ": is empty");
  if (record.compare(0, 3, "\xEF\xBB\xBF") == 0) record.erase(0, 3);
  const bool headless = is_url(record.substr(0, record.find(separator_)));
  quotes_ = format_.quotes == UrlListFormat::Quotes::kYes ||
            (format_.quotes == UrlListFormat::Quotes::kByHeader && (!headless || separator_ == ','));
  if (headless) {
    rest_is_caption_ = !quotes_;
    first_record_ = std::move(record);
    return;
  }
  std::vector<std::string> names;
  if (!split(record, quotes_, names)) fail<ConfigError>(shown(path_), ":1: the names of the columns can't be read");
  columns_ = names.size();
  const auto place = [&](const std::string& wanted) {
    const auto found = std::find(names.begin(), names.end(), wanted);
    if (found != names.end()) return static_cast<size_t>(found - names.begin());
    std::string listed;
    for (const auto& name : names) listed += (listed.empty() ? "" : ", ") + printable(name, 60);
    fail<ConfigError>(
        shown(path_), ":1: there is no column \"", printable(wanted), "\"; the columns are ", printable(listed, 500),
        " (--url-column and --caption-column name them; a list without a line of names ", "begins with a URL)");
  };
  url_column_ = place(format_.url_column);
  caption_column_ = place(format_.caption_column);
}

// A line, or more where quotes hold line ends.
bool UrlList::read_record(std::string& record, bool quotes) {
  record.clear();
  too_long_ = false;
  second_line_ = -1;
  std::string line;
  for (bool first = true;; first = false) {
    if (!std::getline(in_, line)) {
      if (in_.bad()) fail<DataError>(shown(path_), ": can't be read to its end");
      if (first) return false;
      break;
    }
    if (!first) record += '\n';
    record += line;
    if (record.size() > kMostRowBytes) too_long_ = true;
    if (too_long_ || !quotes || !is_open(record, separator_)) break;
    if (first) second_line_ = in_.tellg();
  }
  if (!record.empty() && record.back() == '\r') record.pop_back();
  return true;
}

// False when quotes are not where they may be; then they mean nothing.
bool UrlList::split(const std::string& record, bool quotes, std::vector<std::string>& fields) const {
  fields.clear();
  size_t at = 0;
  while (true) {
    std::string& field = fields.emplace_back();
    if (quotes && at < record.size() && record[at] == '"') {
      for (++at;; ++at) {
        const size_t close = record.find('"', at);
        if (close == std::string::npos) return false;
        field.append(record, at, close - at);
        at = close + 1;
        if (at >= record.size() || record[at] != '"') break;
        field += '"';
      }
      if (at < record.size() && record[at] != separator_) return false;
    } else {
      const size_t end = std::min(record.find(separator_, at), record.size());
      field.assign(record, at, end - at);
      at = end;
    }
    if (at >= record.size()) return true;
    ++at;
  }
}

void UrlList::take_json(const std::string& record, UrlRow& row) const {
  const auto object = nlohmann::json::parse(record, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    row.problem = "is no JSON object";
    return;
  }
  const auto url = object.find(format_.url_column), caption = object.find(format_.caption_column);
  if (url == object.end() || !url->is_string() || caption == object.end() || !caption->is_string()) {
    row.problem =
        concat("has no texts \"", printable(format_.url_column), "\" and \"", printable(format_.caption_column), '"');
    return;
  }
  row.url = url->get<std::string>();
  row.caption = caption->get<std::string>();
}

bool UrlList::next(UrlRow& row) {
  row = {};
  std::string record;
  if (first_record_) {
    record = std::move(*first_record_);
    first_record_.reset();
  } else if (!read_record(record, quotes_)) {
    return false;
  }
  row.number = rows_++;
  if (second_line_ > 0 && (too_long_ || is_open(record, separator_))) {  // the quote that opened it was none
    in_.clear();
    in_.seekg(second_line_);
    record.resize(record.find('\n'));
    too_long_ = false;
  }
  if (too_long_) {
    row.problem = concat("is longer than ", kMostRowBytes, " bytes");
    return true;
  }
  if (json_) {
    take_json(record, row);
    return true;
  }
  if (rest_is_caption_) {
    const size_t end = record.find(separator_);
    if (end == std::string::npos) {
      row.problem = "has no caption";
    } else {
      row.url = record.substr(0, end);
      row.caption = record.substr(end + 1);
    }
    return true;
  }
  std::vector<std::string> fields;
  if (!split(record, quotes_, fields) || fields.size() != columns_) split(record, /*quotes=*/false, fields);
  if (fields.size() <= std::max(url_column_, caption_column_)) {
    row.problem = concat("has ", fields.size(), " fields of ", columns_);
  } else {
    row.url = std::move(fields[url_column_]);
    row.caption = std::move(fields[caption_column_]);
  }
  return true;
}

}  // namespace mdm::ingest
