// Samples of a webdataset archive: members that share a key.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "data/dataset_rows.h"
#include "mdm/core/error.h"
#include "mdm/data/tar.h"

namespace mdm {
namespace {

constexpr uint64_t kMostTextBytes = uint64_t{16} << 20;
constexpr float kNoNumber = std::numeric_limits<float>::quiet_NaN();

bool is_image_ending(std::string_view ending) {
  for (const char* known : {"jpg", "jpeg", "png", "webp", "bmp", "tga", "ppm", "pgm", "pnm"}) {
    if (ending == known) return true;
  }
  return false;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

// Why a caption can't be used; empty when it can.
std::string read_text_member(const TarMember& member, const detail::ArchiveFile& file, std::string& text) {
  if (member.size > kMostTextBytes) return concat("a text of ", member.size, " bytes");
  text.resize(member.size);
  return file.read_at(member.offset, text.data(), text.size()) ? "" : "the archive is cut";
}

float json_number(const nlohmann::json& value) {
  if (value.is_number()) {
    const double number = value.get<double>();
    return std::isfinite(static_cast<float>(number)) ? static_cast<float>(number) : kNoNumber;
  }
  return value.is_string() ? number_of(value.get_ref<const std::string&>()) : kNoNumber;
}

std::string take_json(const WebParts& part, const detail::ArchiveFile& file, const std::vector<std::string>& numbers,
                      bool caption_wanted, WebSample& sample) {
  std::string text;
  if (std::string problem = read_text_member(*part.json, file, text); !problem.empty()) return problem;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return caption_wanted ? "its JSON file holds no object" : "";
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto found = json.find(numbers[i]);
    if (found != json.end()) sample.numbers[i] = json_number(*found);
  }
  if (!caption_wanted) return {};
  const auto caption = json.find("caption");
  if (caption == json.end() || !caption->is_string()) return "its JSON file has no text \"caption\"";
  sample.caption = caption->get<std::string>();
  return {};
}

}  // namespace

std::string_view web_key(std::string_view name) {
  const size_t slash = name.rfind('/');
  return name.substr(0, name.find('.', slash == std::string_view::npos ? 0 : slash + 1));
}

bool is_web_image(std::string_view name) {
  const size_t key = web_key(name).size();
  return key + 1 < name.size() && is_image_ending(lower(name.substr(key + 1)));
}

std::vector<WebParts> web_parts(const TarIndex& index) {
  std::vector<WebParts> parts;
  std::unordered_map<std::string_view, size_t> places;
  for (const TarMember& member : index.members()) {
    const std::string_view name = member.name;
    const std::string_view key = web_key(name);
    if (key.size() + 1 >= name.size()) continue;
    const std::string ending = lower(name.substr(key.size() + 1));
    const bool image = is_image_ending(ending);
    if (!image && ending != "txt" && ending != "json") continue;
    const auto [place, added] = places.try_emplace(key, parts.size());
    if (added) parts.push_back({place->first});
    WebParts& part = parts[place->second];
    const TarMember*& slot = image ? part.image : ending == "txt" ? part.text : part.json;
    if (slot == nullptr) slot = &member;
    part.images += image ? 1 : 0;
  }
  return parts;
}

std::string read_web_sample(const WebParts& part, const detail::ArchiveFile& file,
                            const std::vector<std::string>& numbers, WebSample& sample) {
  sample.numbers.assign(numbers.size(), kNoNumber);
  if (part.text == nullptr && part.json == nullptr) return "it has neither .txt nor .json";
  if (part.text != nullptr) {
    if (std::string problem = read_text_member(*part.text, file, sample.caption); !problem.empty()) return problem;
    if (!sample.caption.empty() && sample.caption.back() == '\n') sample.caption.pop_back();
    if (!sample.caption.empty() && sample.caption.back() == '\r') sample.caption.pop_back();
  }
  if (part.json != nullptr && (part.text == nullptr || !numbers.empty())) {
    return take_json(part, file, numbers, part.text == nullptr, sample);
  }
  return {};
}

float number_of(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || code != std::errc() || end != text.data() + text.size()) return kNoNumber;
  return std::isfinite(static_cast<float>(value)) ? static_cast<float>(value) : kNoNumber;
}

WebSamples read_webdataset(const TarIndex& index, const detail::ArchiveFile& file, uint32_t archive,
                           const std::string& name, const std::vector<std::string>& numbers) {
  WebSamples found;
  for (const WebParts& part : web_parts(index)) {
    if (part.image == nullptr) {
      if (part.text != nullptr) {
        found.bad.emplace_back("member", concat(printable(name, 1000), ": ", printable(part.key), ": has no image"));
      }
      continue;
    }
    const std::string where = concat(printable(name, 1000), ": ", printable(part.image->name), ": ");
    if (part.image->size > kMostMemberBytes) {
      found.bad.emplace_back("member",
                             concat(where, "the file is larger than the ", kMostMemberBytes, " bytes that are read"));
      continue;
    }
    WebSample sample;
    const std::string problem = read_web_sample(part, file, numbers, sample);
    if (!problem.empty()) {
      found.bad.emplace_back("caption", concat(where, "no caption: ", problem));
      continue;
    }
    sample.file = part.image->name;
    sample.image = {part.image->offset, static_cast<uint32_t>(part.image->size), archive};
    found.samples.push_back(std::move(sample));
  }
  return found;
}

}  // namespace mdm
