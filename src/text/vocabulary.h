// The pieces of the mdm tokenizer with their costs, and the two files they can come from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace mdm {

/// Pieces in the order of their ids.
struct Vocabulary {
  std::string bytes;             ///< all pieces, one after the other, U+2581 replaced by a space
  std::vector<uint32_t> ends;    ///< where piece i ends in `bytes`
  std::vector<double> costs;     ///< minus the scores
  std::vector<uint8_t> special;  ///< 1 for pieces that stand for no text: </s>, <pad>, <unk>, <extra_id_N>

  size_t size() const { return ends.size(); }
  std::string_view piece(size_t id) const {
    const uint32_t begin = id == 0 ? 0 : ends[id - 1];
    return std::string_view(bytes).substr(begin, ends[id] - begin);
  }
};

constexpr size_t kMaxVocabularyBytes = size_t{8} << 20;
constexpr size_t kMaxPieces = 1'000'000;
constexpr size_t kMaxPieceBytes = 512;

/// Reads lines `piece TAB score`. DataError names the line.
Vocabulary read_vocab(const std::filesystem::path& file);
/// The same from memory; `where` names the place in errors.
Vocabulary parse_vocab(std::string_view text, const std::string& where);
/// The vocabulary as such lines: parse_vocab() of them gives the same pieces and costs. ConfigError when a piece
/// has no place in a text file (a tab, a line break, bytes that are no UTF-8).
std::string vocab_text(const Vocabulary& vocabulary);
/// Reads a SentencePiece model: scores rounded to 5 decimals, the 100 extra ids added where absent.
Vocabulary vocabulary_from_spiece(const std::filesystem::path& file);

}  // namespace mdm
