#include "pipeline/prompts.h"

#include <algorithm>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/utf8.h"

namespace mdm {
namespace {

constexpr size_t kMaxLine = size_t{1} << 20;
constexpr size_t kMaxFile = size_t{256} << 20;

std::vector<std::string> split_tabs(const std::string& line) {
  std::vector<std::string> fields;
  size_t start = 0;
  while (true) {
    const size_t tab = line.find('\t', start);
    fields.push_back(line.substr(start, tab == std::string::npos ? tab : tab - start));
    if (tab == std::string::npos) return fields;
    start = tab + 1;
  }
}

// A field in double quotes with inner quotes doubled, as csv writers leave it.
std::string unquoted(const std::string& field) {
  if (field.size() < 2 || field.front() != '"' || field.back() != '"') return field;
  std::string out;
  for (size_t i = 1; i + 1 < field.size(); ++i) {
    out += field[i];
    if (field[i] == '"' && field[i + 1] == '"' && i + 2 < field.size()) ++i;
  }
  return out;
}

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  std::string text = read_text_file(file, kMaxFile);
  if (text.rfind("\xEF\xBB\xBF", 0) == 0) text.erase(0, 3);
  std::vector<std::string> lines;
  size_t start = 0;
  while (start < text.size()) {
    const size_t end = std::min(text.find('\n', start), text.size());
    size_t stop = end;
    if (stop > start && text[stop - 1] == '\r') --stop;
    if (stop - start > kMaxLine) {
      fail<DataError>(printable(file.string()), ":", lines.size() + 1, ": the line is longer than 1 MiB");
    }
    lines.push_back(text.substr(start, stop - start));
    if (!is_utf8(lines.back())) {
      fail<DataError>(printable(file.string()), ":", lines.size(), ": \"", printable(lines.back(), 80),
                      "\" is not valid UTF-8");
    }
    start = end + 1;
  }
  return lines;
}

}  // namespace

std::vector<std::string> read_prompts(const std::filesystem::path& file) {
  const std::vector<std::string> lines = lines_of(file);
  std::vector<std::string> prompts;
  size_t first = 0, column = 0;
  bool table = false;
  if (!lines.empty()) {
    const auto header = split_tabs(lines[0]);
    const auto found =
        std::find_if(header.begin(), header.end(), [](const auto& name) { return unquoted(name) == "caption"; });
    if (found != header.end()) {
      table = true;
      first = 1;
      column = static_cast<size_t>(found - header.begin());
    }
  }
  for (size_t i = first; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    if (!table) {
      prompts.push_back(lines[i]);
      continue;
    }
    const auto fields = split_tabs(lines[i]);
    if (column >= fields.size()) {
      fail<DataError>(printable(file.string()), ":", i + 1, ": has ", fields.size(),
                      " columns, the caption is in column ", column + 1);
    }
    prompts.push_back(unquoted(fields[column]));
  }
  if (prompts.empty()) fail<DataError>(printable(file.string()), ": holds no prompt");
  return prompts;
}

std::vector<PictureRequest> picture_requests(const SampleConfig& sample, uint64_t seed) {
  std::vector<std::string> prompts = sample.prompts;
  if (!sample.prompts_file.empty()) {
    const auto more = read_prompts(sample.prompts_file);
    prompts.insert(prompts.end(), more.begin(), more.end());
  }
  if (prompts.empty()) fail<ConfigError>("no prompt: give --prompt TEXT (several are allowed) or --prompts-file FILE");
  const auto& negatives = sample.negative_prompts;
  if (negatives.size() > 1 && negatives.size() != prompts.size()) {
    fail<ConfigError>("negative_prompt: ", negatives.size(), " for ", prompts.size(),
                      " prompts; give none, one, or one for each");
  }
  std::vector<PictureRequest> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    for (int64_t k = 0; k < sample.num_samples; ++k) {
      PictureRequest request;
      request.prompt = prompts[i];
      if (!negatives.empty()) request.negative_prompt = negatives.size() == 1 ? negatives[0] : negatives[i];
      request.seed = seed + requests.size();
      requests.push_back(std::move(request));
    }
  }
  return requests;
}

}  // namespace mdm
