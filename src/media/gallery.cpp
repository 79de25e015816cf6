// The gallery page and its list.
#include "mdm/media/gallery.h"

#include <nlohmann/json.hpp>

#include "mdm/core/files.h"
#include "media/utf8.h"

namespace mdm {
namespace {

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #fafafa; --ink: #1c1c1e; --card: #fff; --line: #d8d8dc; --mark: #0a5fd0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16161a; --ink: #ececf0; --card: #222228; --line: #3a3a42; --mark: #7ab2ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.35rem; font-weight: 600; margin: 0 0 1rem; overflow-wrap: anywhere; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr)); gap: 1rem;
  list-style: none; margin: 0; padding: 0; }
li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
a { display: block; }
a:focus-visible, button:focus-visible { outline: 3px solid var(--mark); outline-offset: -3px; }
li img { display: block; width: 100%; height: auto; image-rendering: auto; }
p { margin: 0; padding: .6rem .8rem; overflow-wrap: anywhere; white-space: pre-wrap; max-height: 9em; overflow-y: auto; }
dialog { border: 0; border-radius: .6rem; padding: 0; max-width: 96vw; max-height: 96vh; background: var(--card);
  color: var(--ink); }
dialog::backdrop { background: rgb(0 0 0 / .75); }
dialog img { display: block; margin: 0 auto; max-width: 96vw; max-height: 80vh; min-width: min(24rem, 90vw);
  object-fit: contain; }
dialog form { display: flex; gap: .5rem; justify-content: center; padding: .5rem; }
button { font: inherit; padding: .35rem .9rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--page); color: var(--ink); }
)css";

// Reads all it shows from the page, so that nothing of a caption ever stands in the script. Without
// scripts the links open the pictures.
constexpr const char* kScript = R"js(
const links = [...document.querySelectorAll("li a")];
const dialog = document.querySelector("dialog");
let at = 0;
function show(i) {
  at = (i + links.length) % links.length;
  const from = links[at].querySelector("img");
  const to = dialog.querySelector("img");
  to.src = from.src;
  to.alt = from.alt;
  dialog.querySelector("p").textContent = from.alt;
  if (!dialog.open) dialog.showModal();
}
links.forEach((link, i) => link.addEventListener("click", event => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(i);
}));
dialog.querySelector("[data-go='-1']").addEventListener("click", () => show(at - 1));
dialog.querySelector("[data-go='1']").addEventListener("click", () => show(at + 1));
dialog.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") show(at - 1);
  if (event.key === "ArrowRight") show(at + 1);
});
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => links[at].focus());
)js";

// Text for an element or a quoted attribute. Control characters that HTML doesn't allow become U+FFFD.
std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : detail::sound_utf8(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      case '\t': out += "&#9;"; break;
      case '\n': out += "&#10;"; break;
      case '\r': out += "&#13;"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
          out += "\xEF\xBF\xBD";
        } else {
          out.push_back(c);
        }
    }
  }
  return out;
}

// A relative reference: everything but letters, digits and -._~/ as %XX, and "./" in front, so that no name
// can be taken for a scheme or a host.
std::string escape_url(std::string_view path) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out = "./";
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || c == '/';
    if (plain) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

std::string item_html(const GalleryItem& item) {
  const std::string url = escape_url(item.path);
  const std::string caption = escape_html(item.caption);
  return "<li><a href=\"" + url + "\"><img src=\"" + url + "\" alt=\"" + caption +
         "\" loading=\"lazy\" decoding=\"async\"></a><p>" + caption + "</p></li>\n";
}

}  // namespace

std::string gallery_json(const std::vector<GalleryItem>& items) {
  using Json = nlohmann::json;
  std::string out = "[";
  for (size_t i = 0; i < items.size(); ++i) {
    out += i == 0 ? "\n" : ",\n";
    out += Json::array({items[i].path, items[i].caption}).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  return out + "\n]\n";
}

std::string gallery_html(const std::vector<GalleryItem>& items, const std::string& title) {
  const std::string shown_title = escape_html(title);
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      shown_title + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n<h1>" + shown_title + "</h1>\n<ul>\n";
  for (const GalleryItem& item : items) page += item_html(item);
  page +=
      "</ul>\n<dialog aria-label=\"Picture\">\n<img alt=\"\">\n<p></p>\n<form method=\"dialog\">"
      "<button type=\"button\" data-go=\"-1\" aria-label=\"Previous\">&larr;</button>"
      "<button autofocus>Close</button>"
      "<button type=\"button\" data-go=\"1\" aria-label=\"Next\">&rarr;</button></form>\n</dialog>\n<script>";
  page += kScript;
  page += "</script>\n</body>\n</html>\n";
  return page;
}

void write_gallery(const std::filesystem::path& folder, std::vector<GalleryItem> items, const std::string& title) {
  for (GalleryItem& item : items) {
    const std::filesystem::path path(item.path);
    if (path.is_absolute()) item.path = path.lexically_proximate(std::filesystem::absolute(folder)).generic_string();
  }
  write_file(folder / "lst.json", gallery_json(items));
  write_file(folder / "index.html", gallery_html(items, title));
}

}  // namespace mdm
