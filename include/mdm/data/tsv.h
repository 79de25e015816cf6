// The TSV files that list training data: the dialect of the reference's reader (mlx-data's CSVReader with a tab
// and '"').
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mdm {

/// Reads records one by one. The first record names the columns; where a name stands twice, the last one counts.
///
/// Dialect: fields are separated by one tab; records end with LF or CRLF, the last one perhaps with the end of the
/// text. A field that begins with '"' is quoted: it may hold tabs and line ends, and `""` stands for one quote.
/// Spaces are kept. A last field that is empty and not quoted is not counted. Bad records: another number of fields
/// than the first has (empty lines too), a quote inside an unquoted field, a character after a closing quote, a
/// carriage return without a line feed, an open quote at the end of the text, and more than kMaxRecordBytes.
/// A byte order mark at the start is skipped. Not read: files that are compressed.
class TsvReader {
 public:
  static constexpr size_t kMaxRecordBytes = size_t{1} << 24;
  static constexpr size_t kMaxColumns = 1024;

  enum class Result { kRecord, kBad, kEnd };

  /// `text` must stay valid; `name` is what errors call it. DataError when the first record is bad or missing.
  TsvReader(std::string_view text, std::string name);

  const std::vector<std::string>& columns() const { return columns_; }
  /// Place of a column, or -1.
  int find(std::string_view column) const;
  /// Place of a column; DataError that lists the columns and the nearest name when there is none.
  size_t require(std::string_view column) const;

  /// The next record into `fields` (as many as columns). After kBad reading goes on at the line that follows the
  /// first line of the bad record, and problem() tells what is wrong.
  Result next(std::vector<std::string>& fields);
  /// "FILE:LINE: what is wrong", lines counted from 1.
  const std::string& problem() const { return problem_; }
  /// Line at which the last record began.
  uint64_t line() const { return line_; }

 private:
  bool read_record(std::vector<std::string>& fields);
  bool read_field(std::string& field, bool& last, bool& quoted);
  bool bad(const char* what);

  std::string_view text_;
  std::string name_;
  std::vector<std::string> columns_;
  std::string problem_;
  size_t at_ = 0;
  uint64_t line_ = 0;
  uint64_t next_line_ = 1;
};

/// A field as it is written in this dialect: quoted where it must be.
std::string tsv_field(std::string_view text);

}  // namespace mdm
