// Lists of URLs in all forms that they are published in, and in broken ones.
#include "ingest/url_list.h"

#include "ingest/support.h"
#include "mdm/core/error.h"

namespace mdm::ingest {
namespace {

using ingest_test::FolderTest;

class UrlListTest : public FolderTest {
 protected:
  // "URL|caption" of each row, or "!problem".
  std::vector<std::string> rows(const std::string& name, const std::string& text, const UrlListFormat& format = {}) {
    UrlList list(write(name, text), format);
    std::vector<std::string> all;
    UrlRow row;
    uint64_t number = 0;
    while (list.next(row)) {
      EXPECT_EQ(row.number, number++);
      all.push_back(row.problem.empty() ? row.url + '|' + row.caption : '!' + row.problem);
    }
    return all;
  }
  using Rows = std::vector<std::string>;
};

TEST_F(UrlListTest, WithoutHeaderEverythingBehindTheTabIsTheCaption) {  // Conceptual 12M
  EXPECT_EQ(rows("cc12m.tsv", "http://a/1\tsays \"hi\"\nhttps://a/2\t\"quoted\" and\tmore\nhttp://a/3\t\n"),
            (Rows{"http://a/1|says \"hi\"", "https://a/2|\"quoted\" and\tmore", "http://a/3|"}));
  EXPECT_EQ(rows("a.tsv", "http://a/1\tx\r\nno tab\r\nhttp://a/2\ty"),
            (Rows{"http://a/1|x", "!has no caption", "http://a/2|y"}));
}

TEST_F(UrlListTest, NamedColumns) {
  EXPECT_EQ(rows("a.tsv", "id\tcaption\turl\n7\ta cat\thttp://a/1\n8\t\"a \"\"big\"\"\ndog\"\thttp://a/2\n"),
            (Rows{"http://a/1|a cat", "http://a/2|a \"big\"\ndog"}));
  EXPECT_EQ(rows("a.csv", "url,caption\nhttp://a/1,\"one, two\"\nhttp://a/2,three\n"),
            (Rows{"http://a/1|one, two", "http://a/2|three"}));
  UrlListFormat format;
  format.url_column = "URL";
  format.caption_column = "TEXT";
  EXPECT_EQ(rows("a.csv", "TEXT,URL\nx,http://a/1\n", format), (Rows{"http://a/1|x"}));
}

TEST_F(UrlListTest, QuotesThatMakeNoSenseAreTextInTheirRowAlone) {
  EXPECT_EQ(rows("a.tsv",
                 "url\tcaption\nhttp://a/1\t\"Foo\" bar\nhttp://a/2\tscreen of 5\" "
                 "size\nhttp://a/3\t\"open\nhttp://a/4\tlast\n"),
            (Rows{"http://a/1|\"Foo\" bar", "http://a/2|screen of 5\" size", "http://a/3|\"open", "http://a/4|last"}));
}

TEST_F(UrlListTest, QuotesCanBeSwitchedOff) {
  UrlListFormat format;
  format.quotes = UrlListFormat::Quotes::kNo;
  EXPECT_EQ(rows("a.tsv", "url\tcaption\nhttp://a/1\t\"Foo\"\n", format), (Rows{"http://a/1|\"Foo\""}));
  format.quotes = UrlListFormat::Quotes::kYes;
  EXPECT_EQ(rows("b.tsv", "http://a/1\t\"Foo\"\n", format), (Rows{"http://a/1|Foo"}));
}

TEST_F(UrlListTest, JsonLines) {
  EXPECT_EQ(
      rows("a.jsonl",
           "{\"url\":\"http://a/"
           "1\",\"caption\":\"\\u00e9\\n\\ud83d\\ude00\"}\nnonsense\n{\"url\":5,\"caption\":\"x\"}\n[]\n"),
      (Rows{"http://a/1|é\n😀", "!is no JSON object", "!has no texts \"url\" and \"caption\"", "!is no JSON object"}));
}

TEST_F(UrlListTest, WrongFieldsAreReportedAndCounted) {
  EXPECT_EQ(rows("a.tsv", "url\tcaption\nhttp://a/1\n\nhttp://a/2\tx\n"),
            (Rows{"!has 1 fields of 2", "!has 1 fields of 2", "http://a/2|x"}));
}

TEST_F(UrlListTest, LongRows) {
  const std::string lengthy(UrlList::kMostRowBytes + 10, 'x');
  const Rows all = rows("a.tsv", "http://a/1\t" + lengthy + "\nhttp://a/2\ty\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].substr(0, 15), "!is longer than");
  EXPECT_EQ(all[1], "http://a/2|y");
}

TEST_F(UrlListTest, MissingColumnsAndFiles) {
  try {
    rows("a.tsv", "link\ttext\nhttp://a/1\tx\n");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("no column \"url\"; the columns are link, text"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(rows("empty.tsv", ""), DataError);
  EXPECT_THROW(UrlList(folder_ / "absent", {}), DataError);
  EXPECT_THROW(UrlList(folder_, {}), DataError);
}

}  // namespace
}  // namespace mdm::ingest
