// The index of tar archives. Every length in a header is checked against the archive before it is used.
#include "mdm/data/tar.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "data/archive_file.h"
#include "data/tar_header.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using tar::Header;
using tar::kBlock;

// Digits of a number of base 8, between spaces and a NUL or space; none when there is something else.
std::optional<uint64_t> octal(const char* text, size_t size) {
  size_t at = 0;
  while (at < size && text[at] == ' ') ++at;
  uint64_t value = 0;
  for (; at < size && text[at] >= '0' && text[at] <= '7'; ++at)
    value = value << 3 | static_cast<uint64_t>(text[at] - '0');
  for (; at < size; ++at) {
    if (text[at] != ' ' && text[at] != '\0') return std::nullopt;
  }
  return value;
}

// The size field: octal, or base 256 (GNU) where its first bit is set; negative ones are refused.
std::optional<uint64_t> size_field(const Header& header) {
  const auto first = static_cast<uint8_t>(header.size[0]);
  if (first < 0x80) return octal(header.size, sizeof header.size);
  if (first != 0x80) return std::nullopt;
  uint64_t value = 0;
  for (size_t i = 1; i < sizeof header.size; ++i) {
    if (value >> 56 != 0) return std::nullopt;
    value = value << 8 | static_cast<uint8_t>(header.size[i]);
  }
  return value;
}

// Sum of the header's bytes with spaces for the sum itself; some writers added signed characters.
bool checksum_fits(const Header& header) {
  const auto stated = octal(header.checksum, sizeof header.checksum);
  if (!stated) return false;
  char bytes[kBlock];
  std::memcpy(bytes, &header, kBlock);
  std::fill_n(bytes + offsetof(Header, checksum), sizeof header.checksum, ' ');
  uint64_t plain = 0;
  int64_t with_sign = 0;
  for (const char c : bytes) {
    plain += static_cast<uint8_t>(c);
    with_sign += static_cast<signed char>(c);
  }
  return *stated == plain || static_cast<int64_t>(*stated) == with_sign;
}

std::string text_field(const char* text, size_t size) { return std::string(text, ::strnlen(text, size)); }

std::string header_name(const Header& header) {
  std::string name = text_field(header.name, sizeof header.name);
  if (std::memcmp(header.magic, "ustar\0", 6) == 0 && header.prefix[0] != '\0') {
    name = text_field(header.prefix, sizeof header.prefix) + '/' + name;
  }
  return name;
}

const char* compression_of(std::string_view start) {
  using namespace std::string_view_literals;
  for (const auto& [mark, name] : {std::pair{"\x1F\x8B"sv, "gzip"}, std::pair{"BZh"sv, "bzip2"},
                                   std::pair{"\xFD\x37zXZ"sv, "xz"}, std::pair{"\x28\xB5\x2F\xFD"sv, "zstd"}}) {
    if (start.substr(0, mark.size()) == mark) return name;
  }
  return nullptr;
}

}  // namespace

// Walks the headers; what extended headers say is kept until the member that they belong to.
class TarIndexer {
 public:
  TarIndexer(const TarIndex::ReadAt& read_at, uint64_t size, const std::string& name)
      : read_at_(read_at), size_(size), where_(printable(name, 1000)) {}

  TarIndex run() {
    if (size_ == 0) fail<DataError>(where_, ": is empty, not a tar archive");
    while (step()) {
    }
    index_.end_ = std::min(at_, size_);
    drop_replaced();
    return std::move(index_);
  }

 private:
  struct Extended {
    std::optional<std::string> path;
    std::optional<uint64_t> size;
    bool sparse = false;
  };

  // Ends the walk. Damage in the very first header means that this is no archive.
  template <typename... Parts>
  bool damage(const Parts&... parts) {
    if (at_ == 0) fail<DataError>(where_, ": is not a tar archive: ", parts...);
    index_.problem_ = concat(where_, ": at byte ", at_, ": ", parts...);
    return false;
  }

  bool step() {
    if (at_ >= size_) return false;
    Header header;
    if (!read_at_(at_, &header, kBlock)) return damage("the archive is cut inside a header");
    if (tar::is_zero(header)) {
      index_.ended_ = true;
      return false;
    }
    if (!checksum_fits(header)) return bad_header(header);
    const bool has_content = header.type < '1' || header.type > '6';
    const auto stated = size_field(header);
    if (has_content && !stated) return damage("the size of a member is no number");
    uint64_t size = has_content ? *stated : 0;
    uint64_t content = at_ + kBlock;
    const bool extends = header.type == 'x' || header.type == 'g' || header.type == 'L' || header.type == 'K';
    if (extended_.size && !extends && has_content) size = *extended_.size;
    if (header.type == 'S' && !skip_sparse_maps(header, content)) return false;
    if (content > size_ || size > size_ - content) {
      return damage("a member of ", size, " bytes reaches beyond the archive's ", size_, " bytes");
    }
    if (!take(header, content, size)) return false;
    const uint64_t rest = size % kBlock;
    at_ = content + size + (rest == 0 ? 0 : kBlock - rest);
    return true;
  }

  bool bad_header(const Header& header) {
    const char* compression = at_ == 0 ? compression_of({reinterpret_cast<const char*>(&header), kBlock}) : nullptr;
    if (compression != nullptr) return damage("it is compressed (", compression, "); unpack it first");
    return damage("the header's checksum does not fit");
  }

  bool take(const Header& header, uint64_t content, uint64_t size) {
    switch (header.type) {
      case 'L': return long_name(content, size);
      case 'x': return pax(content, size);
      case 'K':
      case 'g': return true;  // a long link target; defaults for the whole archive, of which none is used here
      default: break;
    }
    std::string name = extended_.path ? *extended_.path : header_name(header);
    const bool folder = header.type == '\0' && !name.empty() && name.back() == '/';
    const bool regular = (header.type == '0' || header.type == '\0' || header.type == '7') && !folder;
    if (regular && !extended_.sparse && !name.empty()) {
      index_.members_.push_back({std::move(name), content, size});
    } else {
      ++index_.skipped_;
      index_.folders_ += folder || header.type == '5' ? 1 : 0;
    }
    extended_ = {};
    return true;
  }

  bool read_text(uint64_t content, uint64_t size, size_t most, const char* what, std::string& text) {
    if (size > most) return damage(what, " of ", size, " bytes, more than the ", most, " allowed");
    text.resize(size);
    if (!read_at_(content, text.data(), text.size())) return damage("the archive is cut inside ", what);
    return true;
  }

  bool long_name(uint64_t content, uint64_t size) {
    std::string text;
    if (!read_text(content, size, TarIndex::kMaxNameBytes, "a long name", text)) return false;
    text.resize(::strnlen(text.data(), text.size()));
    if (!extended_.path) extended_.path = std::move(text);
    return true;
  }

  // Records "LENGTH key=value\n", where LENGTH counts all of the record.
  bool pax(uint64_t content, uint64_t size) {
    std::string text;
    if (!read_text(content, size, TarIndex::kMaxExtendedBytes, "an extended header", text)) return false;
    std::string_view rest = text;
    while (!rest.empty() && rest[0] != '\0') {
      size_t digits = 0;
      size_t length = 0;
      for (; digits < rest.size() && digits < 8 && rest[digits] >= '0' && rest[digits] <= '9'; ++digits) {
        length = length * 10 + static_cast<size_t>(rest[digits] - '0');
      }
      const bool sound = digits > 0 && digits < length && length <= rest.size() && rest[digits] == ' ' &&
                         length >= digits + 4 && rest[length - 1] == '\n';
      if (!sound) return damage("a record of an extended header is broken");
      const std::string_view record = rest.substr(digits + 1, length - digits - 2);
      const size_t equals = record.find('=');
      if (equals == std::string_view::npos) return damage("a record of an extended header has no '='");
      if (!pax_record(record.substr(0, equals), record.substr(equals + 1))) return false;
      rest.remove_prefix(length);
    }
    return true;
  }

  bool pax_record(std::string_view key, std::string_view value) {
    if (key == "path") {
      if (value.empty() || value.size() > TarIndex::kMaxNameBytes || value.find('\0') != std::string_view::npos) {
        return damage("the name in an extended header is not possible");
      }
      extended_.path = std::string(value);
    } else if (key == "size") {
      uint64_t size = 0;
      for (const char c : value) {
        if (c < '0' || c > '9' || size > size_) return damage("the size in an extended header is not possible");
        size = size * 10 + static_cast<uint64_t>(c - '0');
      }
      extended_.size = size;
    } else if (key.substr(0, 10) == "GNU.sparse") {
      extended_.sparse = true;
    }
    return true;
  }

  // GNU sparse files may have more maps between header and content.
  bool skip_sparse_maps(const Header& header, uint64_t& content) {
    char block[kBlock];
    std::memcpy(block, &header, kBlock);
    for (char more = block[482]; more != 0; more = block[504]) {
      if (!read_at_(content, block, kBlock)) return damage("the archive is cut inside a sparse file's map");
      content += kBlock;
    }
    return true;
  }

  void drop_replaced() {
    auto& members = index_.members_;
    auto& by_name = index_.by_name_;
    by_name.reserve(members.size());
    for (size_t i = 0; i < members.size(); ++i) by_name[members[i].name] = i;
    if (by_name.size() == members.size()) return;
    std::vector<TarMember> kept;
    for (size_t i = 0; i < members.size(); ++i) {
      if (by_name.at(members[i].name) == i) kept.push_back(members[i]);
    }
    index_.replaced_ = members.size() - kept.size();
    by_name.clear();
    members = std::move(kept);
    for (size_t i = 0; i < members.size(); ++i) by_name[members[i].name] = i;
  }

  const TarIndex::ReadAt& read_at_;
  uint64_t size_;
  std::string where_;
  uint64_t at_ = 0;
  Extended extended_;
  TarIndex index_;
};

TarIndex TarIndex::build(const ReadAt& read_at, uint64_t size, const std::string& name) {
  return TarIndexer(read_at, size, name).run();
}

TarIndex TarIndex::build(std::string_view bytes, const std::string& name) {
  const ReadAt read_at = [bytes](uint64_t offset, void* target, size_t count) {
    if (offset > bytes.size() || count > bytes.size() - offset) return false;
    if (count > 0) std::memcpy(target, bytes.data() + offset, count);
    return true;
  };
  return build(read_at, bytes.size(), name);
}

TarIndex TarIndex::open(const std::filesystem::path& file) {
  const detail::ArchiveFile archive(file);
  return build([&](uint64_t offset, void* target, size_t count) { return archive.read_at(offset, target, count); },
               archive.size(), file.string());
}

const TarMember* TarIndex::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &members_[found->second];
}

}  // namespace mdm
