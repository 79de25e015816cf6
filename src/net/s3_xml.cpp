#include "net/s3_xml.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <pugixml.hpp>

#include "mdm/core/error.h"
#include "mdm/net/http_client.h"

namespace mdm::net {
namespace {

constexpr std::ptrdiff_t kMostTags = 200000;  // a page of 1000 objects has some 20,000; bounds the tree's memory
constexpr size_t kMostObjects = 10000;

bool parsed(pugi::xml_document& document, const std::string& xml) {
  // An empty element costs 4 bytes of text and 60 of tree.
  if (xml.size() > kMostPageBytes || std::count(xml.begin(), xml.end(), '<') > kMostTags) return false;
  return document.load_buffer(xml.data(), xml.size(), pugi::parse_default, pugi::encoding_utf8);
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "a%2Fb+c" -> "a/b c": S3 writes a space as '+', and '+' as %2B.
bool decode(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i] == '+' ? ' ' : text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? digit_of(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? digit_of(text[i + 2]) : -1;
    if (high < 0 || low < 0) return false;
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return true;
}

bool read_object(const pugi::xml_node& node, bool encoded, S3Object& object) {
  const char* key = node.child_value("Key");
  if (encoded) {
    if (!decode(key, object.key)) return false;
  } else {
    object.key = key;
  }
  const std::string size = node.child_value("Size");
  if (object.key.empty() || size.empty() || size.size() > 18 ||
      size.find_first_not_of("0123456789") != std::string::npos) {
    return false;
  }
  object.bytes = std::strtoull(size.c_str(), nullptr, 10);
  object.etag = node.child_value("ETag");
  return true;
}

}  // namespace

S3Problem parse_s3_problem(const std::string& xml) {
  S3Problem problem;
  pugi::xml_document document;
  if (!parsed(document, xml)) return problem;
  pugi::xml_node error = document.child("Error");
  if (!error) error = document.child("ErrorResponse").child("Error");
  problem.code = error.child_value("Code");
  problem.message = error.child_value("Message");
  problem.region = error.child_value("Region");
  problem.server_time = error.child_value("ServerTime");
  return problem;
}

S3Page parse_s3_page(const std::string& xml, const std::string& shown) {
  const auto bad = [&](const char* why) { throw NetError(NetError::Kind::kProtocol, concat(shown, ": ", why)); };
  pugi::xml_document document;
  if (!parsed(document, xml)) bad("the server's listing is no XML that can be read");
  const pugi::xml_node root = document.child("ListBucketResult");
  if (!root) bad("the server answers with something else than a listing");
  const bool encoded = std::strcmp(root.child_value("EncodingType"), "url") == 0;
  S3Page page;
  for (const pugi::xml_node& node : root.children("Contents")) {
    S3Object object;
    if (!read_object(node, encoded, object)) bad("the server's listing has an object without a proper key or size");
    page.objects.push_back(std::move(object));
    if (page.objects.size() > kMostObjects) bad("the server's listing has too many objects on a page");
  }
  if (std::strcmp(root.child_value("IsTruncated"), "true") == 0) {
    page.next = root.child_value("NextContinuationToken");
    if (page.next.empty()) bad("the server's listing breaks off without saying how to go on");
  }
  return page;
}

}  // namespace mdm::net
