#include "text/spiece_model.h"

#include <cmath>
#include <cstring>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "text/vocabulary.h"

namespace mdm {
namespace {

// One field of a protobuf message.
struct ProtoField {
  uint64_t number = 0;
  uint64_t integer = 0;    // varint, fixed32 and fixed64
  std::string_view bytes;  // length-delimited
  int wire_type = 0;
};

// Walks the fields of one message; every length is checked against what is left.
class ProtoReader {
 public:
  ProtoReader(std::string_view message, size_t offset, const std::string& where)
      : message_(message), offset_(offset), where_(where) {}

  bool next(ProtoField& field) {
    if (at_ == message_.size()) return false;
    const uint64_t key = varint();
    field = {};
    field.number = key >> 3;
    field.wire_type = static_cast<int>(key & 7);
    if (field.number == 0 || field.number > 0x1FFFFFFF) damaged("a field number out of range");
    switch (field.wire_type) {
      case 0: field.integer = varint(); break;
      case 1: field.integer = fixed(8); break;
      case 2: {
        const uint64_t length = varint();
        if (length > message_.size() - at_) damaged("a length beyond the end of its message");
        field.bytes = message_.substr(at_, length);
        at_ += length;
        break;
      }
      case 5: field.integer = fixed(4); break;
      default: damaged("an unknown kind of field");
    }
    return true;
  }
  /// Where the bytes of the last length-delimited field begin in the file.
  size_t offset_of(std::string_view bytes) const {
    return offset_ + static_cast<size_t>(bytes.data() - message_.data());
  }
  [[noreturn]] void damaged(const char* what) const {
    fail<DataError>(where_, ": no SentencePiece model, or a damaged one: ", what, " at byte ", offset_ + at_);
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == message_.size()) damaged("the message ends inside a number");
      const auto byte = static_cast<uint8_t>(message_[at_++]);
      if (shift == 63 && byte > 1) damaged("a number of more than 64 bits");
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    damaged("a number of more than ten bytes");
  }
  uint64_t fixed(size_t count) {
    if (message_.size() - at_ < count) damaged("the message ends inside a number");
    uint64_t value = 0;
    for (size_t i = 0; i < count; ++i) {
      value |= static_cast<uint64_t>(static_cast<uint8_t>(message_[at_ + i])) << (8 * i);
    }
    at_ += count;
    return value;
  }

  std::string_view message_;
  size_t at_ = 0;
  size_t offset_;
  const std::string& where_;
};

void expect_wire_type(const ProtoReader& reader, const ProtoField& field, int wire_type) {
  if (field.wire_type != wire_type) reader.damaged("a field of the wrong kind");
}

SpiecePiece read_piece(ProtoReader reader, size_t id, const std::string& where) {
  SpiecePiece piece;
  ProtoField field;
  while (reader.next(field)) {
    if (field.number == 1) {
      expect_wire_type(reader, field, 2);
      piece.text = field.bytes;
    } else if (field.number == 2) {
      expect_wire_type(reader, field, 5);
      const auto bits = static_cast<uint32_t>(field.integer);
      std::memcpy(&piece.score, &bits, sizeof(bits));
    } else if (field.number == 3) {
      expect_wire_type(reader, field, 0);
      if (field.integer < 1 || field.integer > 6) {
        fail<DataError>(where, ": piece ", id, " is of the unknown type ", field.integer);
      }
      piece.type = static_cast<SpieceType>(field.integer);
    }
  }
  if (piece.text.empty()) fail<DataError>(where, ": piece ", id, " is empty");
  if (piece.text.size() > 0xFFFF) fail<DataError>(where, ": piece ", id, " has ", piece.text.size(), " bytes");
  if (piece.text.find('\0') != std::string_view::npos) {
    fail<DataError>(where, ": piece ", id, " (\"", printable(piece.text, 40), "\") holds a NUL byte");
  }
  if (!(std::fabs(piece.score) <= 1e6F)) {
    fail<DataError>(where, ": piece ", id, " (\"", printable(piece.text, 40), "\") has the score ", piece.score,
                    "; expected a number between -1e6 and 1e6");
  }
  return piece;
}

void read_trainer_spec(ProtoReader reader, SpieceModel& model) {
  ProtoField field;
  while (reader.next(field)) {
    if (field.number == 3 || field.number == 24 || field.number == 35) expect_wire_type(reader, field, 0);
    if (field.number == 3) model.model_type = static_cast<int64_t>(field.integer);
    if (field.number == 24) model.treat_whitespace_as_suffix = field.integer != 0;
    if (field.number == 35) model.byte_fallback = field.integer != 0;
  }
}

void read_normalizer_spec(ProtoReader reader, SpieceModel& model) {
  ProtoField field;
  while (reader.next(field)) {
    if (field.number == 2) {
      expect_wire_type(reader, field, 2);
      model.precompiled_charsmap = field.bytes;
    }
    if (field.number >= 3 && field.number <= 5) expect_wire_type(reader, field, 0);
    if (field.number == 3) model.add_dummy_prefix = field.integer != 0;
    if (field.number == 4) model.remove_extra_whitespaces = field.integer != 0;
    if (field.number == 5) model.escape_whitespaces = field.integer != 0;
  }
}

uint32_t little_endian_32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= static_cast<uint32_t>(static_cast<uint8_t>(bytes[at + i])) << (8 * i);
  return value;
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_integer(std::string& out, uint64_t number, uint64_t value) {
  put_varint(out, number << 3);
  put_varint(out, value);
}
void put_bytes(std::string& out, uint64_t number, std::string_view bytes) {
  put_varint(out, number << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

}  // namespace

bool looks_like_spiece_model(std::string_view bytes) {
  // Field 1 (a piece), whose own first field is the text. A .vocab can't: 0x0A is an empty first line.
  return bytes.size() >= 3 && bytes[0] == '\x0A' && bytes[2] == '\x0A';
}

SpieceModel read_spiece_model(const std::filesystem::path& file) {
  SpieceModel model;
  model.bytes = std::make_shared<const std::string>(read_text_file(file, kMaxVocabularyBytes));
  const std::string where = printable(file.string(), 1000);
  ProtoReader reader(*model.bytes, 0, where);
  ProtoField field;
  while (reader.next(field)) {
    if (field.number < 1 || field.number > 3) continue;
    expect_wire_type(reader, field, 2);
    const ProtoReader inner(field.bytes, reader.offset_of(field.bytes), where);
    if (field.number == 1) {
      if (model.pieces.size() >= kMaxPieces) fail<DataError>(where, ": more than ", kMaxPieces, " pieces");
      model.pieces.push_back(read_piece(inner, model.pieces.size(), where));
    } else if (field.number == 2) {
      read_trainer_spec(inner, model);
    } else {
      read_normalizer_spec(inner, model);
    }
  }
  if (model.pieces.empty()) fail<DataError>(where, ": no SentencePiece model: it holds no pieces");
  return model;
}

void check_charsmap(std::string_view charsmap, const std::string& where) {
  if (charsmap.empty()) return;
  const auto damaged = [&](const char* what) {
    fail<DataError>(where, ": the table of character normalisation is damaged: ", what);
  };
  if (charsmap.size() < 4) damaged("it has no length");
  const uint64_t trie_bytes = little_endian_32(charsmap, 0);
  if (trie_bytes % 4 != 0 || trie_bytes < 1024 || trie_bytes >= charsmap.size() - 4) damaged("its length");
  const auto units = charsmap.substr(4, trie_bytes);
  const auto strings = charsmap.substr(4 + trie_bytes);
  if (strings.back() != '\0') damaged("its last string has no end");

  // The longest string a character may become: 33 bytes in NFKC. A longer one is an attempt to fill memory.
  constexpr size_t kMaxReplacement = 256;
  std::vector<uint8_t> too_long(strings.size());
  size_t run = 0;
  for (size_t i = strings.size(); i-- > 0;) {
    run = strings[i] == '\0' ? 0 : run + 1;
    too_long[i] = run > kMaxReplacement ? 1 : 0;
  }

  // A unit of the double array: label or value, whether a value hangs below, and an offset that leads,
  // by exclusive or with its own position, to the block of its children (Darts-clone's layout).
  const uint64_t count = trie_bytes / 4;
  for (uint64_t at = 0; at < count; ++at) {
    const uint32_t unit = little_endian_32(units, at * 4);
    if (unit >> 31 != 0 && at != 0) continue;  // a value; reached only through a unit that is checked here
    const uint64_t block = at ^ (static_cast<uint64_t>(unit >> 10) << ((unit & 0x200U) >> 6));
    if ((block | 0xFF) >= count) damaged("a step leads out of it");
    if ((unit >> 8 & 1) == 0) continue;
    const uint32_t value = little_endian_32(units, block * 4) & 0x7FFFFFFFU;
    if (value >= strings.size()) damaged("a string lies outside");
    if (too_long[value] != 0) damaged("a character becomes a string of more than 256 bytes");
  }
}

std::string serialize(const SpieceModel& model) {
  std::string out, part;
  for (const auto& piece : model.pieces) {
    part.clear();
    put_bytes(part, 1, piece.text);
    uint32_t bits = 0;
    std::memcpy(&bits, &piece.score, sizeof(bits));
    put_varint(part, 2 << 3 | 5);
    for (int i = 0; i < 4; ++i) part += static_cast<char>(bits >> (8 * i));
    put_integer(part, 3, static_cast<uint64_t>(piece.type));
    put_bytes(out, 1, part);
  }
  part.clear();
  put_integer(part, 3, 1);  // unigram
  put_bytes(out, 2, part);
  part.clear();
  put_bytes(part, 2, model.precompiled_charsmap);
  put_integer(part, 3, model.add_dummy_prefix ? 1 : 0);
  put_integer(part, 4, model.remove_extra_whitespaces ? 1 : 0);
  put_integer(part, 5, model.escape_whitespaces ? 1 : 0);
  put_bytes(out, 3, part);
  return out;
}

}  // namespace mdm
