#include "mdm/text/other_encoders.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm {
namespace {

std::string without_outer_spaces(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kBlank) - begin + 1));
}

std::string hint(std::string_view nearest) {
  return nearest.empty() ? std::string() : concat("; the nearest is '", printable(nearest), "'");
}

}  // namespace

struct PrecomputedTextEncoder::Impl {
  TensorFile file;
};

PrecomputedTextEncoder::PrecomputedTextEncoder(const std::filesystem::path& file, at::Device device)
    : impl_(new Impl{TensorFile::open(file)}), device_(device) {
  const std::string where = printable(file.string(), 1000);
  if (impl_->file.entries().empty()) fail<CheckpointError>(where, ": holds no text embeddings");
  for (const auto& entry : impl_->file.entries()) {
    const bool fits = entry.shape.size() == 2 && entry.shape[0] > 0 && entry.shape[1] > 0 &&
                      at::isFloatingType(entry.dtype) && (width_ == 0 || entry.shape[1] == width_);
    if (!fits) {
      fail<CheckpointError>(where, ": '", printable(entry.name), "' is no text embedding; expected (tokens, ",
                            width_ == 0 ? std::string("width") : std::to_string(width_), ") of floating point");
    }
    width_ = entry.shape[1];
  }
}

PrecomputedTextEncoder::~PrecomputedTextEncoder() = default;

TextEncoder::Rows PrecomputedTextEncoder::encode_rows(const std::vector<std::string>& captions, int64_t max_length,
                                                      Use) {
  std::vector<Row> rows;
  for (const auto& caption : captions) {
    if (impl_->file.find(caption) == nullptr) {
      std::vector<std::string_view> names;
      for (const auto& entry : impl_->file.entries()) names.push_back(entry.name);
      fail<DataError>(printable(impl_->file.path().string(), 1000), ": has no embedding of \"", printable(caption),
                      "\"", hint(caption.size() > 1000 ? std::string_view() : nearest_name(caption, names)));
    }
    at::Tensor outputs = impl_->file.tensor(caption);
    if (max_length >= 0 && outputs.size(0) > max_length) outputs = outputs.narrow(0, 0, max_length);
    outputs = outputs.to(device_).to(at::kFloat);
    rows.push_back({outputs, at::ones({outputs.size(0)}, outputs.options())});
  }
  return padded(rows);
}

ClassLabelEncoder::ClassLabelEncoder(const std::filesystem::path& file, int64_t width, at::Device device)
    : where_(printable(file.string(), 1000)), device_(device) {
  const std::string text = read_text_file(file, size_t{16} << 20);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    auto line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    const std::string name = without_outer_spaces(line.substr(0, line.find('\t')));
    if (name.empty() || (name.front() == '<' && name.back() == '>')) continue;
    if (!columns_.emplace(name, static_cast<int64_t>(names_.size())).second) {
      fail<DataError>(where_, ": the class '", printable(name), "' is there twice");
    }
    names_.push_back(name);
  }
  const auto count = static_cast<int64_t>(names_.size());
  if (count == 0) fail<DataError>(where_, ": lists no classes");
  width_ = width < 0 ? count : width;
  // The reference's words in front are <pad>, <s> and </s>; <unk>, where the file has it, comes last.
  const bool reference_numbering = width_ == count + 3 || width_ == count + 4;
  if (width_ != count && !reference_numbering) {
    fail<ConfigError>(where_, ": lists ", count, " classes, which doesn't fit a model of width ", width_, "; expected ",
                      count, ", ", count + 3, " or ", count + 4);
  }
  for (auto& [name, column] : columns_) column += reference_numbering ? 3 : 0;
}

int64_t ClassLabelEncoder::column_of(const std::string& label) const {
  const std::string name = without_outer_spaces(label);
  if (name.empty()) return -1;
  if (const auto at = columns_.find(name); at != columns_.end()) return at->second;
  fail<DataError>(where_, ": has no class '", printable(name), "'",
                  hint(name.size() > 1000 ? std::string_view() : nearest_name(name, names_)));
}

bool ClassLabelEncoder::knows(std::string_view label) const {
  const std::string name = without_outer_spaces(label);
  return name.empty() || columns_.count(name) != 0;
}

TextEncoder::Rows ClassLabelEncoder::encode_rows(const std::vector<std::string>& captions, int64_t, Use) {
  const auto count = static_cast<int64_t>(captions.size());
  at::Tensor outputs = at::zeros({count, 1, width_}, at::TensorOptions().dtype(at::kFloat));
  auto values = outputs.accessor<float, 3>();
  for (int64_t i = 0; i < count; ++i) {
    if (const int64_t column = column_of(captions[static_cast<size_t>(i)]); column >= 0) values[i][0][column] = 1;
  }
  return {outputs.to(device_), at::ones({count, 1}, outputs.options()).to(device_),
          std::vector<int64_t>(captions.size(), 1)};
}

}  // namespace mdm
