// Reading zip directories. Scanners and loaders that disagree about a broken zip are how hostile files get
// through, so everything ambiguous is refused: comments, overlaps, duplicates, local headers that differ.
#include "checkpoint/zip_archive.h"

#include <zlib.h>

#include <algorithm>
#include <numeric>

#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50, kLocatorSignature = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint64_t kMaxEntries = 1'000'000;
constexpr uint64_t kMaxEntryName = 4096;
constexpr uint32_t kIn64 = 0xFFFFFFFF;

}  // namespace

template <typename... Parts>
void ZipArchive::wrong(const Parts&... parts) const {
  fail<CheckpointError>(place_, ": the zip archive ", parts...);
}

uint64_t ZipArchive::little(uint64_t offset, int count) const {
  if (offset > bytes_.size() || bytes_.size() - offset < static_cast<uint64_t>(count)) {
    wrong("ends inside a header (byte ", offset, " of ", bytes_.size(), ")");
  }
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i)
    value = value << 8 | static_cast<uint8_t>(bytes_[offset + static_cast<size_t>(i)]);
  return value;
}

ZipArchive::ZipArchive(std::string_view bytes, std::string place) : bytes_(bytes), place_(std::move(place)) {
  const Directory directory = find_directory();
  read_directory(directory);
  check_overlaps(directory);
  by_name_.resize(entries_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::sort(by_name_.begin(), by_name_.end(),
            [&](uint32_t a, uint32_t b) { return entries_[a].name < entries_[b].name; });
  for (size_t i = 1; i < by_name_.size(); ++i) {
    if (entries_[by_name_[i - 1]].name == entries_[by_name_[i]].name) {
      wrong("holds '", printable(entries_[by_name_[i]].name), "' twice");
    }
  }
}

// The end record must be the last thing in the file (no comment), the directory must end where it begins.
ZipArchive::Directory ZipArchive::find_directory() const {
  if (bytes_.size() < kEndBytes) wrong("is cut off: it has ", bytes_.size(), " bytes");
  const uint64_t end = bytes_.size() - kEndBytes;
  if (little(end, 4) != kEndSignature) {
    wrong("has no directory at its end: the file is cut off, or bytes were added to it");
  }
  if (little(end + 20, 2) != 0) wrong("claims a comment, which PyTorch never writes");
  if (little(end + 4, 2) != 0 || little(end + 6, 2) != 0) wrong("is part of a set of several files");
  Directory directory{little(end + 16, 4), end, little(end + 10, 2)};
  uint64_t size = little(end + 12, 4);
  uint64_t here = little(end + 8, 2);
  if (end >= kLocatorBytes && little(end - kLocatorBytes, 4) == kLocatorSignature) {
    const uint64_t locator = end - kLocatorBytes;
    const uint64_t record = little(locator + 8, 8);
    if (record > locator || locator - record < kEnd64Bytes || little(record, 4) != kEnd64Signature) {
      wrong("has a zip64 locator that points at no record (byte ", record, ")");
    }
    if (little(record + 4, 8) != locator - record - 12) wrong("has a zip64 record of the wrong length");
    // The old fields hold either the same numbers or all ones.
    const auto agree = [&](uint64_t old_value, uint64_t ones, uint64_t value) {
      if (old_value != ones && old_value != value) wrong("has two directory records that disagree");
    };
    agree(directory.begin, kIn64, little(record + 48, 8));
    agree(size, kIn64, little(record + 40, 8));
    agree(directory.count, 0xFFFF, little(record + 32, 8));
    directory = {little(record + 48, 8), record, little(record + 32, 8)};
    size = little(record + 40, 8);
    here = little(record + 24, 8);
  }
  if (here != directory.count) wrong("is part of a set of several files");
  if (directory.count > kMaxEntries)
    wrong("claims ", directory.count, " entries; at most ", kMaxEntries, " are allowed");
  if (directory.begin > directory.end || directory.end - directory.begin != size) {
    wrong("has a directory of ", size, " bytes at byte ", directory.begin,
          " that doesn't end where the end record begins (", directory.end, ")");
  }
  if (directory.count > size / kCentralBytes) wrong("claims ", directory.count, " entries in ", size, " bytes");
  return directory;
}

void ZipArchive::read_directory(const Directory& directory) {
  entries_.reserve(directory.count);
  headers_.reserve(directory.count);
  uint64_t at = directory.begin;
  for (uint64_t i = 0; i < directory.count; ++i) {
    if (directory.end - at < kCentralBytes || little(at, 4) != kCentralSignature) {
      wrong("has a broken directory at byte ", at, " (entry ", i, ")");
    }
    const auto flags = static_cast<uint16_t>(little(at + 8, 2));
    const auto method = static_cast<uint16_t>(little(at + 10, 2));
    const uint64_t name_bytes = little(at + 28, 2), extra_bytes = little(at + 30, 2), comment = little(at + 32, 2);
    if (directory.end - at - kCentralBytes < name_bytes + extra_bytes + comment) {
      wrong("has a broken directory at byte ", at, " (entry ", i, ")");
    }
    ZipEntry entry;
    entry.name = bytes_.substr(at + kCentralBytes, name_bytes);
    check_name(entry.name);
    entry.crc = static_cast<uint32_t>(little(at + 16, 4));
    entry.stored_size = little(at + 20, 4);
    entry.size = little(at + 24, 4);
    uint64_t header = little(at + 42, 4);
    if (little(at + 34, 2) != 0) wrong("is part of a set of several files");
    read_zip64(entry, bytes_.substr(at + kCentralBytes + name_bytes, extra_bytes), header);
    const uint64_t unix_type = little(at + 38, 4) >> 28;
    const bool made_by_unix = little(at + 5, 1) == 3;
    if (made_by_unix && unix_type != 0 && unix_type != 8 && unix_type != 4) {  // regular, directory
      wrong("holds '", printable(entry.name), "', which is no regular file (a link?)");
    }
    if (header >= directory.begin) wrong("places '", printable(entry.name), "' behind its directory");
    locate(entry, header, flags, method);
    entries_.push_back(entry);
    headers_.push_back(header);
    at += kCentralBytes + name_bytes + extra_bytes + comment;
  }
  if (at != directory.end) wrong("has ", directory.end - at, " unexplained bytes in its directory");
}

// Sizes that don't fit into 32 bits stand in the extra field 1, in a fixed order, only those that are needed.
void ZipArchive::read_zip64(ZipEntry& entry, std::string_view extra, uint64_t& header) const {
  bool seen = false;
  while (!extra.empty()) {
    if (extra.size() < 4) wrong("has a broken extra field at '", printable(entry.name), "'");
    const uint64_t base = static_cast<uint64_t>(extra.data() - bytes_.data());
    const uint64_t id = little(base, 2), length = little(base + 2, 2);
    if (length > extra.size() - 4) wrong("has a broken extra field at '", printable(entry.name), "'");
    if (id == 1) {
      if (seen) wrong("gives '", printable(entry.name), "' two zip64 fields");
      seen = true;
      uint64_t at = 0;
      for (uint64_t* field : {&entry.size, &entry.stored_size, &header}) {
        if (*field != kIn64) continue;
        if (length - at < 8) wrong("has a zip64 field that is too short at '", printable(entry.name), "'");
        *field = little(base + 4 + at, 8);
        at += 8;
      }
    }
    extra.remove_prefix(4 + length);
  }
  if (!seen && (entry.size == kIn64 || entry.stored_size == kIn64 || header == kIn64)) {
    wrong("lacks the zip64 field of '", printable(entry.name), "'");
  }
}

void ZipArchive::check_name(std::string_view name) const {
  if (name.empty() || name.size() > kMaxEntryName) wrong("has an entry name of ", name.size(), " bytes");
  bool bad = name[0] == '/' || name.find('\0') != std::string_view::npos || name.find('\\') != std::string_view::npos;
  for (size_t at = 0; at <= name.size() && !bad;) {
    const size_t slash = std::min(name.find('/', at), name.size());
    bad = name.substr(at, slash - at) == "..";
    at = slash + 1;
  }
  if (bad) wrong("has the entry name '", printable(name), "', which is no plain relative path");
}

// Finds the data of an entry behind its local header, which must tell the same story as the directory.
void ZipArchive::locate(ZipEntry& entry, uint64_t header, uint16_t flags, uint16_t method) const {
  const auto bad = [&](const auto&... parts) {
    wrong("has the entry '", printable(entry.name), "', which ", parts...);
  };
  if (little(header, 4) != kLocalSignature) bad("has no header of its own at byte ", header);
  if ((flags & (1 | 1 << 6 | 1 << 13)) != 0) bad("is encrypted");
  if (method != 0 && method != 8) bad("is packed by method ", method, "; only stored and deflated are known");
  const uint64_t local_flags = little(header + 6, 2);
  const uint64_t name_bytes = little(header + 26, 2), extra_bytes = little(header + 28, 2);
  entry.offset = header + kLocalBytes + name_bytes + extra_bytes;
  if (entry.offset > bytes_.size() || entry.stored_size > bytes_.size() - entry.offset) {
    bad("claims ", entry.stored_size, " bytes at byte ", entry.offset, " of a file of ", bytes_.size());
  }
  if (bytes_.substr(header + kLocalBytes, name_bytes) != entry.name) bad("has another name in its own header");
  if (little(header + 8, 2) != method || ((local_flags ^ flags) & 1) != 0) {
    bad("is packed another way in its own header");
  }
  // With bit 3 the local header leaves sizes and checksum to a record behind the data (PyTorch does that).
  if ((local_flags & 8) == 0) {
    const auto same = [&](uint64_t local, uint64_t central) { return local == central || local == kIn64; };
    if (!same(little(header + 18, 4), entry.stored_size) || !same(little(header + 22, 4), entry.size) ||
        little(header + 14, 4) != entry.crc) {
      bad("has another size or checksum in its own header");
    }
  }
  entry.deflated = method == 8;
  if (!entry.deflated && entry.size != entry.stored_size) {
    bad("is not packed, but has the two sizes ", entry.stored_size, " and ", entry.size);
  }
  if (entry.name.back() == '/' && entry.size != 0) bad("is a folder with content");
}

void ZipArchive::check_overlaps(const Directory& directory) {
  std::vector<uint32_t> order(entries_.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return headers_[a] < headers_[b]; });
  for (size_t i = 0; i < order.size(); ++i) {
    const ZipEntry& entry = entries_[order[i]];
    const uint64_t next = i + 1 < order.size() ? headers_[order[i + 1]] : directory.begin;
    if (entry.offset + entry.stored_size > next) {
      wrong("has entries that overlap ('", printable(entry.name), "' and what follows it)");
    }
  }
  if (!order.empty() && headers_[order[0]] != 0) wrong("has bytes in front of its first entry");
  headers_.clear();
  headers_.shrink_to_fit();
}

const ZipEntry* ZipArchive::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t i, std::string_view wanted) { return entries_[i].name < wanted; });
  return at != by_name_.end() && entries_[*at].name == name ? &entries_[*at] : nullptr;
}

std::string_view ZipArchive::stored(const ZipEntry& entry) const {
  if (entry.deflated) wrong("holds '", printable(entry.name), "' compressed; PyTorch stores tensors as they are");
  return bytes_.substr(entry.offset, entry.size);
}

std::string ZipArchive::inflate(const ZipEntry& entry, size_t max_bytes) const {
  if (entry.size > max_bytes) {
    wrong("holds '", printable(entry.name), "' with ", entry.size, " unpacked bytes; at most ", max_bytes,
          " are allowed");
  }
  std::string content(entry.size, '\0');
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) wrong("can't be unpacked: zlib doesn't start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes_.data() + entry.offset));
  stream.next_out = reinterpret_cast<Bytef*>(content.data());
  // Both fit into 32 bits: unpacked at most max_bytes, and packed data that long would be refused here.
  const bool fits = entry.stored_size <= UINT32_MAX && entry.size <= UINT32_MAX;
  stream.avail_in = fits ? static_cast<uInt>(entry.stored_size) : 0;
  stream.avail_out = fits ? static_cast<uInt>(entry.size) : 0;
  const int code = ::inflate(&stream, Z_FINISH);
  const bool done = code == Z_STREAM_END && stream.avail_out == 0 && stream.avail_in == 0;
  inflateEnd(&stream);
  if (!done) wrong("holds '", printable(entry.name), "' with broken packed data");
  return content;
}

bool ZipArchive::crc_matches(const ZipEntry& entry) const {
  if (entry.crc == 0) return true;
  const auto checksum = [](std::string_view data) {
    return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()));
  };
  if (!entry.deflated) return checksum(stored(entry)) == entry.crc;
  return checksum(inflate(entry, size_t{256} << 20)) == entry.crc;
}

}  // namespace mdm::checkpoint
