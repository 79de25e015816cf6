#include "mdm/data/tsv.h"

#include <gtest/gtest.h>

#include "mdm/core/error.h"

namespace mdm {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// Records, with {"!", problem} for bad ones.
Rows read_all(const std::string& text) {
  TsvReader reader(text, "list.tsv");
  Rows rows;
  std::vector<std::string> fields;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    rows.push_back(result == TsvReader::Result::kRecord ? fields : std::vector<std::string>{"!", reader.problem()});
  }
  return rows;
}

std::string refusal(const std::string& text) {
  try {
    TsvReader reader(text, "list.tsv");
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

TEST(Tsv, PlainRecords) {
  EXPECT_EQ(read_all("a\tb\n1\t2\n3\t4"), (Rows{{"1", "2"}, {"3", "4"}}));
  EXPECT_EQ(read_all("a\tb\r\n1\t 2 \r\n"), (Rows{{"1", " 2 "}}));
  EXPECT_EQ(read_all("a\tb\n"), Rows{});
}

TEST(Tsv, QuotedFields) {
  EXPECT_EQ(read_all("a\tb\n\"x\ty\"\t\"line\nend\"\n"), (Rows{{"x\ty", "line\nend"}}));
  EXPECT_EQ(read_all("a\n\"he said \"\"hi\"\"\"\n"), (Rows{{"he said \"hi\""}}));
  EXPECT_EQ(read_all("a\tb\n\"\"\t\"\"\n"), (Rows{{"", ""}}));
  EXPECT_EQ(read_all("a\n\"x\""), (Rows{{"x"}}));
}

TEST(Tsv, EmptyLastFieldIsNotCounted) {
  // So the reference's own header with a tab at its end is sound, and an empty caption must be quoted.
  EXPECT_EQ(read_all("tar\tfile\tcaption\t\na\tb\tc\n"), (Rows{{"a", "b", "c"}}));
  const Rows rows = read_all("a\tb\n0\t\n0\t\"\"\n\t1\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0][0], "!");
  EXPECT_NE(rows[0][1].find("list.tsv:2: 1 fields"), std::string::npos) << rows[0][1];
  EXPECT_EQ(rows[1], (std::vector<std::string>{"0", ""}));
  EXPECT_EQ(rows[2], (std::vector<std::string>{"", "1"}));
}

TEST(Tsv, BadRecordsAreNamedAndPassedOver) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"x\"y\t1", "a quote inside a field"},
      {"\"x\"y\t1", "a character after a closing quote"},
      {"x\ry\t1", "a carriage return without a line feed"},
      {"x", "1 fields"},
      {"x\ty\tz", "3 fields"},
      {"", "0 fields"},
  };
  for (const auto& [line, problem] : cases) {
    const Rows rows = read_all("a\tb\n1\t2\n" + line + "\n3\t4\n");
    ASSERT_EQ(rows.size(), 3U) << line;
    EXPECT_EQ(rows[1][0], "!") << line;
    EXPECT_NE(rows[1][1].find("list.tsv:3: " + problem), std::string::npos) << rows[1][1];
    EXPECT_EQ(rows[2], (std::vector<std::string>{"3", "4"})) << line;
  }
}

TEST(Tsv, OpenQuoteCostsOneLine) {
  const Rows rows = read_all("a\tb\n1\t\"never closed\n3\t4\n5\t6\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_NE(rows[0][1].find("list.tsv:2: a quoted field has no end"), std::string::npos) << rows[0][1];
  EXPECT_EQ(rows[2], (std::vector<std::string>{"5", "6"}));
}

TEST(Tsv, LinesAreCountedThroughQuotedOnes) {
  const Rows rows = read_all("a\tb\n1\t\"x\ny\nz\"\nbad\n");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_NE(rows[1][1].find("list.tsv:5:"), std::string::npos) << rows[1][1];
}

TEST(Tsv, Columns) {
  TsvReader reader("a\tb\ta\n", "list.tsv");
  EXPECT_EQ(reader.find("a"), 2);  // the last one
  EXPECT_EQ(reader.find("c"), -1);
  try {
    TsvReader("tar\tfile\tcapton\n", "list.tsv").require("caption");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("is \"capton\" meant?"), std::string::npos) << error.what();
  }
  EXPECT_EQ(TsvReader("\xEF\xBB\xBF"
                      "filename\nx\n",
                      "t")
                .find("filename"),
            0);
}

TEST(Tsv, RefusesListsWithoutHeader) {
  EXPECT_NE(refusal("").find("is empty"), std::string::npos);
  EXPECT_NE(refusal("\n").find("no column has a name"), std::string::npos);
  EXPECT_NE(refusal("a\"b\n").find(":1: a quote inside"), std::string::npos);
}

TEST(Tsv, HugeRecordsAndManyFields) {
  const std::string long_field(TsvReader::kMaxRecordBytes + 10, 'x');
  Rows rows = read_all("a\n" + long_field + "\nok\n");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_NE(rows[0][1].find("too long"), std::string::npos);
  EXPECT_EQ(rows[1][0], "ok");
  rows = read_all("a\n\"" + long_field + "\"\nok\n");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0][0], "!");
  rows = read_all("a\n" + std::string(5000, '\t') + "\nok\n");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_NE(rows[0][1].find("too many fields"), std::string::npos);
}

TEST(Tsv, WrittenFieldsComeBack) {
  for (const std::string text : {"plain", "", "a\tb", "line\nend", "q\"uote", "\"", "\r", " x "}) {
    EXPECT_EQ(read_all("a\tb\n" + tsv_field(text) + "\t" + tsv_field(text) + "\n"), (Rows{{text, text}})) << text;
  }
}

}  // namespace
}  // namespace mdm
