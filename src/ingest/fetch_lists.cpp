#include "ingest/fetch_lists.h"

#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/data/tsv.h"

namespace mdm::ingest {
namespace {

constexpr size_t kWriteBytes = size_t{1} << 20;

// Columns that name archives.
std::vector<size_t> archive_columns(const TsvReader& reader) {
  std::vector<size_t> columns;
  for (const char* name : {"tar", "text_tar"}) {
    if (const int column = reader.find(name); column >= 0) columns.push_back(static_cast<size_t>(column));
  }
  return columns;
}

std::string line_of(const std::vector<std::string>& fields) {
  std::string line;
  for (size_t i = 0; i < fields.size(); ++i) line += (i == 0 ? "" : "\t") + tsv_field(fields[i]);
  return line + '\n';
}

}  // namespace

ListContent read_list(const std::filesystem::path& file, const std::string& shown) {
  const auto bytes = FileBytes::open(file);
  TsvReader reader(bytes->view(), shown);
  ListContent content;
  content.is_index = reader.find("filename") >= 0;
  std::vector<size_t> columns;
  if (content.is_index) {
    columns = {reader.require("filename")};
  } else {
    for (const char* column : {"tar", "file", "caption"}) reader.require(column);
    columns = archive_columns(reader);
  }
  std::unordered_set<std::string> seen;
  std::vector<std::string> fields;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    if (result == TsvReader::Result::kBad) {
      if (content.is_index) fail<DataError>(reader.problem());
      continue;  // rewrite_list() counts it
    }
    for (const size_t column : columns) {
      if (seen.insert(fields[column]).second) content.names.push_back(fields[column]);
    }
  }
  if (content.names.empty()) fail<DataError>(printable(shown, 1000), ": has no rows");
  return content;
}

RewrittenList rewrite_list(const std::filesystem::path& file, const std::filesystem::path& target,
                           const std::string& shown, const std::function<std::string(const std::string&)>& local_name) {
  const auto bytes = FileBytes::open(file);
  TsvReader reader(bytes->view(), shown);
  const std::vector<size_t> columns = archive_columns(reader);
  std::unordered_map<std::string, std::string> names;
  RewrittenList written;
  AtomicFile out(target);
  std::string text = line_of(reader.columns());
  std::vector<std::string> fields;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    bool good = result == TsvReader::Result::kRecord;
    for (size_t i = 0; good && i < columns.size(); ++i) {
      std::string& field = fields[columns[i]];
      const auto [known, fresh] = names.try_emplace(field);
      if (fresh) known->second = local_name(field);
      field = known->second;
      good = !field.empty();
    }
    if (!good) {
      ++written.bad_rows;
      continue;
    }
    ++written.rows;
    text += line_of(fields);
    if (text.size() < kWriteBytes) continue;
    out.write(text);
    text.clear();
  }
  if (written.rows == 0) return written;
  out.write(text);
  out.commit();
  return written;
}

}  // namespace mdm::ingest
