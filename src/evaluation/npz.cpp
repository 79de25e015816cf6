#include "evaluation/npz.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <optional>

#include "checkpoint/zip_archive.h"
#include "checkpoint/zip_writer.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm::evaluation {
namespace {

constexpr size_t kMostBytes = size_t{1} << 30;
constexpr std::string_view kMagic = "\x93NUMPY";

// What the header's dictionary says behind `'key':`.
std::string_view value_of(std::string_view header, std::string_view key, const std::string& name) {
  const std::string quoted = concat("'", key, "'");
  size_t at = header.find(quoted);
  if (at != std::string_view::npos) at = header.find(':', at + quoted.size());
  if (at == std::string_view::npos) fail<DataError>(name, ": broken .npy: its header has no ", quoted);
  at = header.find_first_not_of(' ', at + 1);
  return at == std::string_view::npos ? std::string_view() : header.substr(at);
}

bool begins(std::string_view text, std::string_view with) { return text.substr(0, with.size()) == with; }

// "()", "(2048,)" or "(2048, 2048)".
std::vector<int64_t> shape_of(std::string_view text, const std::string& name) {
  const size_t end = text.find(')');
  std::vector<int64_t> shape;
  bool sound = begins(text, "(") && end != std::string_view::npos;
  std::optional<int64_t> size;
  for (size_t at = 1; sound && at <= end; ++at) {
    const char c = text[at];
    if (c >= '0' && c <= '9') {
      size = size.value_or(0) * 10 + (c - '0');
      sound = *size <= INT32_MAX;
    } else if (c == ',' || c == ')') {
      if (size) shape.push_back(*size);
      sound = size.has_value() || c == ')';
      size.reset();
    } else {
      sound = c == ' ';
    }
  }
  if (!sound || shape.size() > 2) {
    fail<DataError>(name, ": an array of shape ", printable(text.substr(0, std::min(end, text.size())), 80),
                    ") is not expected here");
  }
  return shape;
}

template <typename Number>
void copy_numbers(std::string_view data, at::Tensor& target) {
  auto* out = target.mutable_data_ptr<double>();
  for (int64_t i = 0; i < target.numel(); ++i) {
    Number number;
    std::memcpy(&number, data.data() + static_cast<size_t>(i) * sizeof(Number), sizeof(Number));
    out[i] = static_cast<double>(number);
  }
}

at::Tensor read_array(std::string_view bytes, const std::string& name) {
  if (bytes.size() < 12 || !begins(bytes, kMagic)) fail<DataError>(name, ": is no .npy array");
  const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<uint8_t>(bytes[at])); };
  const size_t start = byte(6) == 1 ? 10 : 12;
  const size_t length = byte(8) | byte(9) << 8 | (start == 10 ? 0 : byte(10) << 16 | byte(11) << 24);
  if (byte(6) < 1 || byte(6) > 3 || length > bytes.size() - start) fail<DataError>(name, ": broken .npy header");
  const std::string_view header = bytes.substr(start, length), data = bytes.substr(start + length);
  const std::string_view type = value_of(header, "descr", name);
  std::vector<int64_t> shape = shape_of(value_of(header, "shape", name), name);
  const bool fortran = begins(value_of(header, "fortran_order", name), "True");
  const bool four = begins(type, "'<f4'") || begins(type, "'<i4'");
  if (!four && !begins(type, "'<f8'") && !begins(type, "'<i8'")) {
    fail<DataError>(name, ": is of type ", printable(type.substr(0, 8)), "; '<f4', '<f8', '<i4' and '<i8' can be read");
  }
  if (fortran) std::reverse(shape.begin(), shape.end());
  uint64_t count = 1;
  for (const int64_t size : shape) count *= static_cast<uint64_t>(size);
  if (data.size() % (four ? 4 : 8) != 0 || data.size() / (four ? 4 : 8) != count) {
    fail<DataError>(name, ": broken .npy: ", data.size(), " bytes for ", count, " numbers");
  }
  at::Tensor array = at::empty(shape, at::TensorOptions().dtype(at::kDouble));
  if (begins(type, "'<f4'")) copy_numbers<float>(data, array);
  if (begins(type, "'<f8'")) copy_numbers<double>(data, array);
  if (begins(type, "'<i4'")) copy_numbers<int32_t>(data, array);
  if (begins(type, "'<i8'")) copy_numbers<int64_t>(data, array);
  return fortran && shape.size() == 2 ? array.t().contiguous() : array;
}

std::string array_bytes(const at::Tensor& array) {
  std::string shape;
  for (const int64_t size : array.sizes()) shape += concat(size, array.dim() == 1 ? "," : ", ");
  if (array.dim() > 1) shape.resize(shape.size() - 2);
  std::string header = concat("{'descr': '<f8', 'fortran_order': False, 'shape': (", shape, "), }");
  constexpr size_t kBlock = 64, kStart = 10;
  header.append(kBlock - (kStart + header.size() + 1) % kBlock, ' ');
  header += '\n';
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00', static_cast<char>(header.size() & 0xFF), static_cast<char>(header.size() >> 8)};
  bytes += header;
  const at::Tensor values = array.to(at::kDouble).contiguous();
  bytes.append(static_cast<const char*>(values.const_data_ptr()), static_cast<size_t>(values.numel()) * sizeof(double));
  return bytes;
}

}  // namespace

NamedArrays read_npz(const std::filesystem::path& file) {
  const std::string where = printable(file.string(), 1000);
  const auto bytes = FileBytes::open(file);
  NamedArrays arrays;
  try {
    const checkpoint::ZipArchive zip(bytes->view(), where);
    for (const checkpoint::ZipEntry& entry : zip.entries()) {
      std::string name(entry.name);
      const std::string place = concat(where, ": ", printable(name));
      if (entry.size > kMostBytes) fail<DataError>(place, ": is too large");
      if (!zip.crc_matches(entry)) fail<DataError>(place, ": is damaged: its checksum is wrong");
      if (name.size() > 4 && name.compare(name.size() - 4, 4, ".npy") == 0) name.resize(name.size() - 4);
      if (entry.deflated) {
        arrays.emplace_back(name, read_array(zip.inflate(entry, kMostBytes), place));
      } else {
        arrays.emplace_back(name, read_array(zip.stored(entry), place));
      }
    }
  } catch (const CheckpointError& error) {  // the archive's reader is the checkpoints'
    fail<DataError>(error.what());
  }
  return arrays;
}

void write_npz(const std::filesystem::path& file, const NamedArrays& arrays) {
  AtomicFile out(file);
  checkpoint::ZipWriter zip(out);
  for (const auto& [name, array] : arrays) zip.add(name + ".npy", array_bytes(array));
  zip.finish();
  out.commit();
}

}  // namespace mdm::evaluation
