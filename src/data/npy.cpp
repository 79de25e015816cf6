// The one kind of .npy file that is read: a float32 matrix.
#include <ATen/ops/empty.h>

#include <cstring>
#include <optional>

#include "mdm/core/error.h"
#include "mdm/data/dataset.h"

namespace mdm {
namespace {

constexpr size_t kMostHeaderBytes = 65536;

// The text behind `'key':` in the header's dictionary, which numpy writes as Python does.
std::optional<std::string_view> value_of(std::string_view header, std::string_view key) {
  const std::string quoted = concat("'", key, "'");
  size_t at = header.find(quoted);
  if (at == std::string_view::npos) return std::nullopt;
  at += quoted.size();
  while (at < header.size() && header[at] == ' ') ++at;
  if (at == header.size() || header[at] != ':') return std::nullopt;
  ++at;
  while (at < header.size() && header[at] == ' ') ++at;
  return header.substr(at);
}

bool begins(const std::optional<std::string_view>& text, std::string_view with) {
  return text && text->substr(0, with.size()) == with;
}

// "(L, D)" or "(L, D,)"; false for anything else.
bool matrix_shape(std::string_view text, int64_t shape[2]) {
  size_t at = 0;
  const auto skip = [&](char c) {
    while (at < text.size() && text[at] == ' ') ++at;
    return at < text.size() && text[at] == c && ++at > 0;
  };
  if (!skip('(')) return false;
  for (int i = 0; i < 2; ++i) {
    while (at < text.size() && text[at] == ' ') ++at;
    const size_t start = at;
    int64_t value = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
      value = value * 10 + (text[at] - '0');
      if (value > INT32_MAX) return false;
    }
    if (at == start) return false;
    shape[i] = value;
    const bool comma = skip(',');
    if (i == 0 && !comma) return false;
  }
  return skip(')');
}

}  // namespace

at::Tensor read_npy_matrix(std::string_view bytes, const std::string& name) {
  const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<uint8_t>(bytes[at])); };
  if (bytes.size() < 12 || bytes.substr(0, 6) != "\x93NUMPY") fail<DataError>(name, ": is no .npy file");
  const size_t version = byte(6);
  if (version < 1 || version > 3) fail<DataError>(name, ": .npy version ", version, "; 1 to 3 can be read");
  const size_t start = version == 1 ? 10 : 12;
  const size_t length = byte(8) | byte(9) << 8 | (version == 1 ? 0 : byte(10) << 16 | byte(11) << 24);
  if (length > kMostHeaderBytes || length > bytes.size() - start) {
    fail<DataError>(name, ": broken .npy: a header of ", length, " bytes in ", bytes.size());
  }
  const std::string_view header = bytes.substr(start, length);
  int64_t shape[2] = {0, 0};
  const auto type = value_of(header, "descr");
  const auto shape_text = value_of(header, "shape");
  if (!begins(type, "'<f4'")) fail<DataError>(name, ": is not of float32 (little-endian): ", printable(header));
  if (!begins(value_of(header, "fortran_order"), "False")) fail<DataError>(name, ": is not in C order");
  if (!shape_text || !matrix_shape(*shape_text, shape)) {
    fail<DataError>(name, ": is no matrix (length, width): ", printable(header));
  }
  const std::string_view data = bytes.substr(start + length);
  const uint64_t count = static_cast<uint64_t>(shape[0]) * static_cast<uint64_t>(shape[1]);
  if (count == 0 || count != data.size() / sizeof(float) || data.size() % sizeof(float) != 0) {
    fail<DataError>(name, ": broken .npy: ", data.size(), " bytes for ", shape[0], " x ", shape[1], " numbers");
  }
  at::Tensor matrix = at::empty({shape[0], shape[1]}, at::TensorOptions().dtype(at::kFloat));
  std::memcpy(matrix.data_ptr(), data.data(), data.size());
  return matrix;
}

}  // namespace mdm
