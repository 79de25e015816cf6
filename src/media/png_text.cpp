// The text chunks of PNG files, read without libpng so that pixels are never touched.
#include <zlib.h>

#include <algorithm>

#include "mdm/core/files.h"
#include "mdm/media/png.h"
#include "media/png_chunks.h"
#include "media/utf8.h"

namespace mdm {
namespace {

using detail::fail_image;
using detail::ImageBytes;

// zlib's data unpacked, at most `most` bytes.
std::string inflated(const ImageBytes& bytes, std::string_view packed, size_t most) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) fail<Error>("zlib can't start");
  struct Guard {
    z_stream* stream;
    ~Guard() { inflateEnd(stream); }
  } guard{&stream};
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());  // chunks are below 2^31 bytes
  std::string out;
  char buffer[16384];
  int code = Z_OK;
  while (code == Z_OK) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer);
    stream.avail_out = sizeof buffer;
    code = inflate(&stream, Z_NO_FLUSH);
    const size_t got = sizeof buffer - stream.avail_out;
    if (got > most - out.size()) fail_image(bytes, "a PNG text unpacks to more than the ", most, " bytes allowed");
    out.append(buffer, got);
    if (got == 0 && code == Z_OK) break;
  }
  if (code != Z_STREAM_END) fail_image(bytes, "a PNG text can't be unpacked");
  return out;
}

// The part before the next NUL; `rest` starts behind it. Without a NUL the chunk is broken.
bool cut_at_nul(std::string_view& rest, std::string_view& part) {
  const size_t nul = rest.find('\0');
  if (nul == std::string_view::npos) return false;
  part = rest.substr(0, nul);
  rest.remove_prefix(nul + 1);
  return true;
}

bool is_text_chunk(std::string_view type) { return type == "tEXt" || type == "zTXt" || type == "iTXt"; }

// One text chunk as keyword and UTF-8 text; broken ones are an error.
std::pair<std::string, std::string> text_of_chunk(const ImageBytes& bytes, std::string_view type, std::string_view data,
                                                  size_t most) {
  std::string_view keyword;
  if (!cut_at_nul(data, keyword)) fail_image(bytes, "a PNG text has no end of its keyword");
  std::string text;
  if (type == "tEXt") {
    if (data.size() > most) fail_image(bytes, "the PNG texts have more than the bytes allowed");
    text = detail::latin1_to_utf8(data);
  } else if (type == "zTXt") {
    if (data.empty() || data[0] != 0) fail_image(bytes, "a PNG text is packed in an unknown way");
    text = detail::latin1_to_utf8(inflated(bytes, data.substr(1), most));
  } else {
    if (data.size() < 2) fail_image(bytes, "a PNG text is cut");
    const bool packed = data[0] != 0;
    if (packed && data[1] != 0) fail_image(bytes, "a PNG text is packed in an unknown way");
    data.remove_prefix(2);
    std::string_view ignored;  // language and translated keyword
    if (!cut_at_nul(data, ignored) || !cut_at_nul(data, ignored)) fail_image(bytes, "a PNG text is cut");
    if (!packed && data.size() > most) fail_image(bytes, "the PNG texts have more than the bytes allowed");
    text = detail::sound_utf8(packed ? inflated(bytes, data, most) : std::string(data));
  }
  return {detail::latin1_to_utf8(keyword), std::move(text)};
}

}  // namespace

namespace detail {

void walk_png_chunks(const ImageBytes& bytes, const std::function<bool(std::string_view)>& checked,
                     const std::function<void(std::string_view, std::string_view)>& visit) {
  const std::string_view file(reinterpret_cast<const char*>(bytes.data), bytes.size);
  if (file.substr(0, 8) != kPngSignature) fail_image(bytes, "is no PNG file");
  size_t at = 8;
  while (true) {
    if (file.size() - at < 12) fail_image(bytes, "broken PNG: the file is cut");
    const size_t length = read_be32(bytes.data + at);
    if (length > file.size() - at - 12) fail_image(bytes, "broken PNG: the file is cut");
    const std::string_view type = file.substr(at + 4, 4);
    const std::string_view data = file.substr(at + 8, length);
    if (checked(type)) {
      const uLong sum = crc32(0, bytes.data + at + 4, static_cast<uInt>(length + 4));
      if (sum != read_be32(bytes.data + at + 8 + length)) {
        fail_image(bytes, "broken PNG: the checksum of a ", printable(type), " chunk does not fit");
      }
    }
    if (type == "IEND") return;
    visit(type, data);
    at += length + 12;
  }
}

void append_be32(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

void append_be16(std::string& out, uint16_t value) {
  out.push_back(static_cast<char>(value >> 8));
  out.push_back(static_cast<char>(value));
}

void append_png_chunk(std::string& out, std::string_view type, std::string_view data) {
  append_be32(out, static_cast<uint32_t>(data.size()));
  const size_t start = out.size();
  out += type;
  out += data;
  const auto* summed = reinterpret_cast<const Bytef*>(out.data() + start);
  append_be32(out, static_cast<uint32_t>(crc32(0, summed, static_cast<uInt>(out.size() - start))));
}

}  // namespace detail

PngText read_png_text(const uint8_t* data, size_t size, std::string_view name, const PngTextLimits& limits) {
  const ImageBytes bytes{data, size, name};
  PngText texts;
  size_t total = 0;
  detail::walk_png_chunks(bytes, is_text_chunk, [&](std::string_view type, std::string_view body) {
    if (!is_text_chunk(type)) return;
    if (texts.size() == limits.entries) fail_image(bytes, "has more than the ", limits.entries, " PNG texts allowed");
    auto entry = text_of_chunk(bytes, type, body, limits.total_bytes - total);
    total += entry.first.size() + entry.second.size();
    if (total > limits.total_bytes) {
      fail_image(bytes, "the PNG texts have more than the ", limits.total_bytes, " bytes allowed");
    }
    texts.push_back(std::move(entry));
  });
  return texts;
}

PngText read_png_text(const std::filesystem::path& path, const PngTextLimits& limits) {
  const auto file = FileBytes::open(path);
  return read_png_text(file->data(), file->size(), path.string(), limits);
}

const std::string* find_png_text(const PngText& text, std::string_view keyword) {
  const auto found = std::find_if(text.begin(), text.end(), [&](const auto& entry) { return entry.first == keyword; });
  return found == text.end() ? nullptr : &found->second;
}

}  // namespace mdm
