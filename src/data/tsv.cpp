#include "mdm/data/tsv.h"

#include <algorithm>

#include "mdm/core/error.h"

namespace mdm {

TsvReader::TsvReader(std::string_view text, std::string name) : text_(text), name_(printable(name, 1000)) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (text_.substr(0, kMark.size()) == kMark) at_ = kMark.size();
  if (at_ == text_.size()) fail<DataError>(name_, ": is empty; a line with the names of the columns is expected");
  if (!read_record(columns_)) fail<DataError>(problem_);
  if (columns_.empty()) fail<DataError>(name_, ":1: no column has a name");
}

int TsvReader::find(std::string_view column) const {
  const auto found = std::find(columns_.rbegin(), columns_.rend(), column);
  return found == columns_.rend() ? -1 : static_cast<int>(columns_.rend() - found) - 1;
}

size_t TsvReader::require(std::string_view column) const {
  const int found = find(column);
  if (found >= 0) return static_cast<size_t>(found);
  std::string listed;
  for (const auto& name : columns_) listed += concat(listed.empty() ? "" : ", ", printable(name, 60));
  const auto nearest = nearest_name(column, columns_);
  fail<DataError>(name_, ":1: there is no column \"", column, "\"; the columns are ", printable(listed, 500),
                  nearest.empty() ? "" : concat("; is \"", printable(nearest), "\" meant?"));
}

bool TsvReader::bad(const char* what) {
  problem_ = concat(name_, ":", line_, ": ", what);
  return false;
}

TsvReader::Result TsvReader::next(std::vector<std::string>& fields) {
  if (at_ >= text_.size()) return Result::kEnd;
  const size_t start = at_;
  if (read_record(fields)) {
    if (fields.size() == columns_.size()) return Result::kRecord;
    problem_ = concat(name_, ":", line_, ": ", fields.size(), " fields, and there are ", columns_.size(),
                      " columns (an empty last field must be written \"\")");
  }
  const size_t line_end = text_.find('\n', start);
  at_ = line_end == std::string_view::npos ? text_.size() : line_end + 1;
  next_line_ = line_ + 1;
  return Result::kBad;
}

// Leaves at_ behind the record's end.
bool TsvReader::read_record(std::vector<std::string>& fields) {
  line_ = next_line_;
  const size_t start = at_;
  size_t count = 0;
  bool last = false;
  bool quoted = false;
  while (!last) {
    if (count == kMaxColumns) return bad("too many fields");
    if (count == fields.size()) fields.emplace_back();
    if (!read_field(fields[count], last, quoted)) return false;
    if (at_ - start > kMaxRecordBytes) return bad("the record is longer than 16 MiB");
    ++count;
  }
  if (!quoted && fields[count - 1].empty()) --count;
  fields.resize(count);
  return true;
}

bool TsvReader::read_field(std::string& field, bool& last, bool& quoted) {
  field.clear();
  const size_t limit = std::min(text_.size(), at_ + kMaxRecordBytes + 1);
  quoted = at_ < limit && text_[at_] == '"';
  if (quoted) {
    ++at_;
    while (true) {
      const size_t close = std::min(text_.find('"', at_), limit);
      field.append(text_, at_, close - at_);
      if (close == limit) return bad(limit == text_.size() ? "a quoted field has no end" : "the record is too long");
      at_ = close + 1;
      if (at_ == limit || text_[at_] != '"') break;
      field += '"';
      ++at_;
    }
    next_line_ += static_cast<uint64_t>(std::count(field.begin(), field.end(), '\n'));
  } else {
    size_t end = at_;
    while (end < limit && text_[end] != '\t' && text_[end] != '\n' && text_[end] != '\r' && text_[end] != '"') ++end;
    field.assign(text_, at_, end - at_);
    at_ = end;
  }
  last = true;
  if (at_ == text_.size()) return true;
  switch (text_[at_++]) {
    case '\t': last = false; return true;
    case '\n': ++next_line_; return true;
    case '\r':
      if (at_ == text_.size() || text_[at_] != '\n') return bad("a carriage return without a line feed");
      ++at_;
      ++next_line_;
      return true;
    case '"':
      if (!quoted) return bad("a quote inside a field that does not begin with one");
      [[fallthrough]];
    default: return bad(quoted ? "a character after a closing quote" : "the record is too long");
  }
}

std::string tsv_field(std::string_view text) {
  if (!text.empty() && text.find_first_of("\t\n\r\"") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace mdm
