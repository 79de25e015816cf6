// Writing zip archives (PKWARE APPNOTE 6.3, with zip64 records where sizes need them).
#include "checkpoint/zip_writer.h"

#include <zlib.h>

#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kOnes32 = 0xFFFFFFFF;
constexpr uint16_t kUtf8Names = 0x0800;
constexpr uint16_t kDay = 0x0021;  // 1980-01-01: the same content makes the same file

void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i & 0xFF);
}

}  // namespace

void ZipWriter::begin(const std::string& name, uint64_t size) {
  Entry entry;
  entry.name = name;
  entry.header = file_.size();
  entry.size = size;
  entry.zip64 = always_zip64_ || size >= kOnes32;
  const uint64_t size32 = entry.zip64 ? kOnes32 : size;
  std::string extra;
  if (entry.zip64) {
    put(extra, 1, 2);
    put(extra, 16, 2);
    put(extra, size, 8);
    put(extra, size, 8);
  }
  // Padding in a field with the id that PyTorch uses for it, so that the data lands on the boundary.
  const uint64_t begin = entry.header + 30 + name.size() + extra.size() + 4;
  const uint64_t padding = (kAlignment - begin % kAlignment) % kAlignment;
  extra += "FB";
  put(extra, padding, 2);
  extra.append(padding, 'Z');

  std::string header;
  put(header, 0x04034b50, 4);
  put(header, entry.zip64 ? 45 : 20, 2);
  put(header, kUtf8Names, 2);
  put(header, 0, 2);  // stored
  put(header, 0, 2);
  put(header, kDay, 2);
  put(header, 0, 4);  // the checksum, set by end()
  put(header, size32, 4);
  put(header, size32, 4);
  put(header, name.size(), 2);
  put(header, extra.size(), 2);
  file_.write(header + name + extra);
  entries_.push_back(std::move(entry));
}

void ZipWriter::write(const void* bytes, size_t count) {
  if (count == 0) return;
  Entry& entry = entries_.back();
  file_.write(bytes, count);
  entry.crc = static_cast<uint32_t>(crc32_z(entry.crc, static_cast<const Bytef*>(bytes), count));
  entry.written += count;
}

void ZipWriter::end() {
  const Entry& entry = entries_.back();
  if (entry.written != entry.size)
    fail<Error>("zip entry ", entry.name, ": ", entry.written, " of ", entry.size, " bytes written");
  std::string crc;
  put(crc, entry.crc, 4);
  file_.write_at(entry.header + 14, crc.data(), crc.size());
}

void ZipWriter::add(const std::string& name, std::string_view bytes) {
  begin(name, bytes.size());
  write(bytes.data(), bytes.size());
  end();
}

void ZipWriter::finish() {
  const uint64_t directory = file_.size();
  for (const Entry& entry : entries_) {
    const bool far = always_zip64_ || entry.header >= kOnes32;
    std::string extra;
    if (entry.zip64 || far) {
      put(extra, 1, 2);
      put(extra, (entry.zip64 ? 16 : 0) + (far ? 8 : 0), 2);
      if (entry.zip64) put(extra, entry.size, 8);
      if (entry.zip64) put(extra, entry.size, 8);
      if (far) put(extra, entry.header, 8);
    }
    const int version = extra.empty() ? 20 : 45;
    std::string record;
    put(record, 0x02014b50, 4);
    put(record, static_cast<uint64_t>(version), 2);
    put(record, static_cast<uint64_t>(version), 2);
    put(record, kUtf8Names, 2);
    put(record, 0, 2);
    put(record, 0, 2);
    put(record, kDay, 2);
    put(record, entry.crc, 4);
    put(record, entry.zip64 ? kOnes32 : entry.size, 4);
    put(record, entry.zip64 ? kOnes32 : entry.size, 4);
    put(record, entry.name.size(), 2);
    put(record, extra.size(), 2);
    put(record, 0, 2);  // comment
    put(record, 0, 2);  // disk
    put(record, 0, 2);
    put(record, 0, 4);
    put(record, far ? kOnes32 : entry.header, 4);
    file_.write(record + entry.name + extra);
  }
  const uint64_t end = file_.size(), count = entries_.size();
  std::string tail;
  // As PyTorch does, always: readers of large files expect it.
  put(tail, 0x06064b50, 4);
  put(tail, 44, 8);
  put(tail, 45, 2);
  put(tail, 45, 2);
  put(tail, 0, 4);
  put(tail, 0, 4);
  put(tail, count, 8);
  put(tail, count, 8);
  put(tail, end - directory, 8);
  put(tail, directory, 8);
  put(tail, 0x07064b50, 4);
  put(tail, 0, 4);
  put(tail, end, 8);
  put(tail, 1, 4);
  put(tail, 0x06054b50, 4);
  put(tail, 0, 4);
  put(tail, count < 0xFFFF ? count : 0xFFFF, 2);
  put(tail, count < 0xFFFF ? count : 0xFFFF, 2);
  put(tail, end - directory < kOnes32 ? end - directory : kOnes32, 4);
  put(tail, directory < kOnes32 ? directory : kOnes32, 4);
  put(tail, 0, 2);
  file_.write(tail);
}

}  // namespace mdm::checkpoint
