// The gallery page: whatever a caption or a path holds, it stays text.
#include "mdm/media/gallery.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm {
namespace {

using namespace std::string_literals;

const std::vector<std::string>& nasty() {
  static const std::vector<std::string> texts = {"plain",
                                                 "it's",
                                                 "say \"x\" onload=\"alert(1)",
                                                 "<script>alert(1)</script>",
                                                 "</p></li></ul><img src=x onerror=alert(1)>",
                                                 "a & b &lt; &#60;",
                                                 "tab\there\nnew line\r\n",
                                                 "caf\xC3\xA9 \xF0\x9F\x98\x80",
                                                 "bad \xFF\xC3 bytes",
                                                 "nul \0 esc \x1B bell \x07"s,
                                                 "javascript:alert(1)",
                                                 "//host/x.png",
                                                 "a b/#?%20.png",
                                                 "-->]]><!--",
                                                 ""};
  return texts;
}

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
  return found;
}

// A reader of attributes as a browser has one: entities decoded.
std::string unescaped(std::string text) {
  for (const auto& [entity, character] :
       {std::pair{"&lt;", "<"}, std::pair{"&gt;", ">"}, std::pair{"&quot;", "\""}, std::pair{"&#39;", "'"},
        std::pair{"&#9;", "\t"}, std::pair{"&#10;", "\n"}, std::pair{"&#13;", "\r"}, std::pair{"&amp;", "&"}}) {
    for (size_t at = 0; (at = text.find(entity, at)) != std::string::npos; ++at) {
      text.replace(at, std::string(entity).size(), character);
    }
  }
  return text;
}

TEST(Gallery, NothingEscapesIntoMarkup) {
  std::vector<GalleryItem> items;
  for (const std::string& text : nasty()) items.push_back({text, text});
  const std::string page = gallery_html(items, "title </title><script>alert(1)</script>");
  const std::string empty = gallery_html({}, "");
  for (const char* mark : {"<script", "</script", "</title", "<!--", "-->"}) {
    EXPECT_EQ(count(page, mark), count(empty, mark)) << mark;
  }
  EXPECT_EQ(count(page, "<img "), count(empty, "<img ") + items.size());
  EXPECT_EQ(count(page, "<li>"), items.size());
  EXPECT_EQ(count(page, "</li>"), items.size());
  for (const char c : page) ASSERT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20);
}

TEST(Gallery, CaptionsReadBackAsTheyWere) {
  for (const std::string& text : {"it's \"x\" <b>&amp;</b>\ttab\nline caf\xC3\xA9 \xF0\x9F\x98\x80"s, "&lt;"s}) {
    const std::string page = gallery_html({{"a.png", text}}, "t");
    const size_t start = page.find(" alt=\"") + 6;
    EXPECT_EQ(unescaped(page.substr(start, page.find('"', start) - start)), text);
    const size_t shown = page.find("<p>") + 3;
    EXPECT_EQ(unescaped(page.substr(shown, page.find("</p>", shown) - shown)), text);
  }
}

TEST(Gallery, PathsAreRelativeReferences) {
  const auto link = [](const std::string& path) {
    const std::string page = gallery_html({{path, ""}}, "t");
    const size_t start = page.find("href=\"") + 6;
    return page.substr(start, page.find('"', start) - start);
  };
  EXPECT_EQ(link("rank0/sample_000001.png"), "./rank0/sample_000001.png");
  EXPECT_EQ(link("javascript:alert(1)"), "./javascript%3Aalert%281%29");
  EXPECT_EQ(link("//host/x.png"), ".///host/x.png");
  EXPECT_EQ(link("a b#?%20\".png"), "./a%20b%23%3F%2520%22.png");
  EXPECT_EQ(link("\xC3\xA9\n"), "./%C3%A9%0A");
}

TEST(Gallery, KeyboardAndThemes) {
  const std::string page = gallery_html({{"a.png", "c"}}, "t");
  for (const char* part : {"prefers-color-scheme: dark", "focus-visible", "ArrowRight", "<dialog", "lang=\"en\"",
                           "charset=\"utf-8\"", "loading=\"lazy\""}) {
    EXPECT_NE(page.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(page.find("http"), std::string::npos);  // nothing from elsewhere
}

TEST(Gallery, JsonHoldsPairs) {
  std::vector<GalleryItem> items;
  for (const std::string& text : nasty()) items.push_back({"p/" + text, text});
  const auto list = nlohmann::json::parse(gallery_json(items));
  ASSERT_EQ(list.size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_EQ(list[i].size(), 2u);
    if (items[i].caption.find("bad") == 0) {
      EXPECT_EQ(list[i][1], "bad \xEF\xBF\xBD\xEF\xBF\xBD bytes");
    } else {
      EXPECT_EQ(list[i][0], items[i].path);
      EXPECT_EQ(list[i][1], items[i].caption);
    }
  }
  EXPECT_TRUE(nlohmann::json::parse(gallery_json({})).empty());
}

TEST(Gallery, Files) {
  const auto folder = std::filesystem::temp_directory_path() / concat("mdm_gallery_test_", ::getpid());
  make_writable_folder(folder);
  write_gallery(folder, {{"a.png", "one"}, {(folder / "sub" / "b.png").string(), "two"}}, "t");
  const auto list = nlohmann::json::parse(read_text_file(folder / "lst.json"));
  EXPECT_EQ(list[1][0], "sub/b.png");
  EXPECT_NE(read_text_file(folder / "index.html").find("./sub/b.png"), std::string::npos);
  std::filesystem::remove_all(folder);
  EXPECT_THROW(write_gallery(folder, {}, "t"), Error);
}

}  // namespace
}  // namespace mdm
