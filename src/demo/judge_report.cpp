#include "demo/judge_report.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/demo/judge.h"
#include "mdm/media/decode.h"

namespace mdm {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxReportedBytes = size_t{256} << 20;

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  const std::string text = read_text_file(file, kMaxReportedBytes);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(std::move(line));
    at = end + 1;
  }
  return lines;
}

// lst.json: [[path, caption], ...], paths relative to it.
std::vector<CaptionedFile> read_picture_list(const std::filesystem::path& file) {
  const std::string where = printable(file.string(), 1000);
  const Json list = Json::parse(read_text_file(file, kMaxReportedBytes), nullptr, false);
  if (!list.is_array()) fail<DataError>(where, ": is no list of [path, caption] in JSON");
  std::vector<CaptionedFile> pictures;
  for (const Json& item : list) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_string()) {
      fail<DataError>(where, ": entry ", pictures.size(), " is not [path, caption]");
    }
    pictures.push_back({file.parent_path() / item[0].get<std::string>(), item[1].get<std::string>()});
  }
  return pictures;
}

std::vector<CaptionedFile> png_files_of(const std::filesystem::path& folder) {
  std::vector<CaptionedFile> pictures;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".png" && entry.is_regular_file()) pictures.push_back({entry.path(), ""});
  }
  std::sort(pictures.begin(), pictures.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return pictures;
}

struct Tally {
  size_t pictures = 0, right = 0, colors = 0, shapes = 0, relation = 0;

  void add(const SceneVerdict& verdict) {
    ++pictures;
    right += verdict.right() ? 1 : 0;
    colors += verdict.colors ? 1 : 0;
    shapes += verdict.shapes ? 1 : 0;
    relation += verdict.relation ? 1 : 0;
  }
  Json json() const {
    const double all = static_cast<double>(std::max<size_t>(1, pictures));
    return {{"pictures", pictures},
            {"right", right},
            {"rate", static_cast<double>(right) / all},
            {"colors_rate", static_cast<double>(colors) / all},
            {"shapes_rate", static_cast<double>(shapes) / all},
            {"relation_rate", static_cast<double>(relation) / all}};
  }
};

Json details_of(const CaptionedFile& picture, const SceneVerdict& verdict) {
  Json objects = Json::array();
  for (const FoundObject& object : verdict.analysis.objects) {
    objects.push_back({{"color", color_name(object.color)},
                       {"color_difference", object.color_difference},
                       {"shape", shape_name(object.shape)},
                       {"iou", object.iou[static_cast<size_t>(object.shape)]},
                       {"x", object.x},
                       {"y", object.y}});
  }
  return {{"path", picture.path.string()}, {"caption", picture.caption}, {"right", verdict.right()},
          {"failure", verdict.failure()},  {"objects", objects},         {"extra_area", verdict.analysis.extra_area}};
}

// JSON text must be UTF-8; file names need not be.
std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

}  // namespace

std::vector<CaptionedFile> find_pictures(const std::filesystem::path& where, const std::filesystem::path& prompts) {
  const std::string name = printable(where.string(), 1000);
  std::error_code error;
  const bool folder = std::filesystem::is_directory(where, error);
  if (!folder && !std::filesystem::exists(where, error)) fail<DataError>(name, ": is not there");
  const auto list = folder ? where / "lst.json" : where;
  const bool listed = std::filesystem::exists(list, error);
  if (!listed && prompts.empty()) fail<DataError>(name, ": has no lst.json; name the captions with --prompts FILE");
  std::vector<CaptionedFile> pictures = listed ? read_picture_list(list) : png_files_of(where);
  if (pictures.empty()) fail<DataError>(name, ": holds no picture");
  if (prompts.empty()) return pictures;
  const auto captions = lines_of(prompts);
  if (captions.empty() || pictures.size() % captions.size() != 0) {
    fail<DataError>(name, ": has ", pictures.size(), " pictures, which can't be shared out evenly among the ",
                    captions.size(), " captions of ", printable(prompts.string(), 1000));
  }
  const size_t each = pictures.size() / captions.size();
  for (size_t i = 0; i < pictures.size(); ++i) pictures[i].caption = captions[i / each];
  return pictures;
}

std::string judge_shapes_report(const std::vector<CaptionedFile>& pictures, bool details) {
  Tally all;
  std::array<std::array<Tally, 2>, kSceneSplits> tallies;
  std::map<std::string, size_t> failures;
  Json verdicts = Json::array();
  for (const CaptionedFile& picture : pictures) {
    const SceneText text = parse_caption(picture.caption);
    const SceneVerdict verdict = judge_scene(load_image(picture.path), text);
    all.add(verdict);
    tallies[static_cast<size_t>(split_of(text))][text.objects.size() - 1].add(verdict);
    if (!verdict.right()) ++failures[verdict.failure()];
    if (details) verdicts.push_back(details_of(picture, verdict));
  }
  Json report = all.json();
  report["splits"] = Json::object();
  for (size_t split = 0; split < tallies.size(); ++split) {
    Json parts = Json::object();
    if (tallies[split][0].pictures > 0) parts["one_object"] = tallies[split][0].json();
    if (tallies[split][1].pictures > 0) parts["two_objects"] = tallies[split][1].json();
    if (!parts.empty()) report["splits"][split_name(static_cast<SceneSplit>(split))] = parts;
  }
  report["failures"] = failures;
  if (details) report["verdicts"] = verdicts;
  return text_of(report);
}

std::string judge_emoji_report(const std::vector<CaptionedFile>& pictures, const EmojiPictures& emoji, bool details) {
  size_t right = 0, unknown = 0;
  Json verdicts = Json::array();
  for (const CaptionedFile& picture : pictures) {
    const auto nearest = emoji.nearest(load_image(picture.path), picture.caption);
    right += nearest.is_named ? 1 : 0;
    unknown += nearest.is_known ? 0 : 1;
    if (details) {
      verdicts.push_back({{"path", picture.path.string()},
                          {"caption", picture.caption},
                          {"right", nearest.is_named},
                          {"nearest", emoji.captions()[nearest.index]}});
    }
  }
  Json report = {{"pictures", pictures.size()},
                 {"right", right},
                 {"rate", static_cast<double>(right) / static_cast<double>(pictures.size())},
                 {"captions_without_emoji", unknown},
                 {"emoji", emoji.captions().size()}};
  if (details) report["verdicts"] = verdicts;
  return text_of(report);
}

}  // namespace mdm
