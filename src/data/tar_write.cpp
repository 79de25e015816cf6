// Writing tar archives: ustar, with pax headers for long names.
#include <cstdio>
#include <cstring>

#include "data/tar_header.h"
#include "mdm/core/error.h"
#include "mdm/data/tar.h"

namespace mdm {
namespace {

constexpr uint64_t kMostBytes = (uint64_t{1} << 33) - 1;  // 11 octal digits

// Where a name is cut into prefix and name; npos when it doesn't fit into ustar's fields.
size_t split_of(std::string_view name) {
  if (name.size() <= sizeof tar::Header::name) return 0;
  for (size_t slash = name.find('/'); slash != std::string_view::npos; slash = name.find('/', slash + 1)) {
    if (slash > sizeof tar::Header::prefix) break;
    if (slash > 0 && name.size() - slash - 1 <= sizeof tar::Header::name && slash + 1 < name.size()) return slash;
  }
  return std::string_view::npos;
}

// "LENGTH path=NAME\n"; the length counts its own digits.
std::string pax_path(std::string_view name) {
  const size_t rest = std::strlen(" path=\n") + name.size();
  size_t length = rest + 1;
  while (concat(length).size() + rest != length) length = concat(length).size() + rest;
  return concat(length, " path=", name, "\n");
}

void put_octal(char* field, size_t size, uint64_t value) {
  std::snprintf(field, size, "%0*llo", static_cast<int>(size) - 1, static_cast<unsigned long long>(value));
}

void append_header(std::string& archive, std::string_view name, std::string_view prefix, uint64_t size, char type) {
  tar::Header header;
  std::memset(&header, 0, sizeof header);
  name.copy(header.name, sizeof header.name);
  prefix.copy(header.prefix, sizeof header.prefix);
  put_octal(header.mode, sizeof header.mode, 0644);
  put_octal(header.owner, sizeof header.owner, 0);
  put_octal(header.group, sizeof header.group, 0);
  put_octal(header.size, sizeof header.size, size);
  put_octal(header.time, sizeof header.time, 0);
  header.type = type;
  std::memcpy(header.magic, "ustar", 6);
  std::memcpy(header.version, "00", 2);
  std::memset(header.checksum, ' ', sizeof header.checksum);
  unsigned sum = 0;
  for (size_t i = 0; i < sizeof header; ++i) sum += reinterpret_cast<const uint8_t*>(&header)[i];
  std::snprintf(header.checksum, sizeof header.checksum, "%06o", sum);
  archive.append(reinterpret_cast<const char*>(&header), sizeof header);
}

void append_padded(std::string& archive, std::string_view content) {
  archive.append(content);
  const size_t rest = content.size() % tar::kBlock;
  if (rest > 0) archive.append(tar::kBlock - rest, '\0');
}

}  // namespace

void append_tar_member(std::string& archive, std::string_view name, std::string_view content) {
  if (name.empty() || name.size() > TarIndex::kMaxNameBytes || name.find('\0') != std::string_view::npos) {
    fail<Error>("a file with the name \"", printable(name), "\" can't be put into a tar archive: 1 to ",
                TarIndex::kMaxNameBytes, " bytes without NUL are allowed");
  }
  if (content.size() > kMostBytes) {
    fail<Error>(printable(name), ": ", content.size(), " bytes are more than the ", kMostBytes,
                " that a tar archive takes");
  }
  const size_t split = split_of(name);
  if (split == std::string_view::npos) {
    const std::string record = pax_path(name);
    append_header(archive, "././@PaxHeader", {}, record.size(), 'x');
    append_padded(archive, record);
    append_header(archive, name.substr(0, sizeof tar::Header::name), {}, content.size(), '0');
  } else if (split == 0) {
    append_header(archive, name, {}, content.size(), '0');
  } else {
    append_header(archive, name.substr(split + 1), name.substr(0, split), content.size(), '0');
  }
  append_padded(archive, content);
}

std::string_view tar_end() {
  static constexpr char kEnd[2 * tar::kBlock] = {};
  return {kEnd, sizeof kEnd};
}

TarWriter::TarWriter(const std::filesystem::path& file) : file_(file) {}
TarWriter::~TarWriter() = default;

void TarWriter::add(std::string_view name, std::string_view content) {
  member_.clear();
  append_tar_member(member_, name, content);
  file_.write(member_);
}

void TarWriter::finish() {
  file_.write(tar_end());
  file_.commit();
}

}  // namespace mdm
