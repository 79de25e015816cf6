#include "text/vocabulary.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/utf8.h"
#include "text/spiece_model.h"

namespace mdm {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, how vocabularies write a space

// What Python's bytes.rstrip() removes.
std::string_view trim_right(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\n\r\v\f").find(text.back()) != std::string_view::npos) {
    text.remove_suffix(1);
  }
  return text;
}

bool is_special(std::string_view piece) {
  if (piece == "<pad>" || piece == "</s>" || piece == "<unk>") return true;
  constexpr std::string_view kExtra = "<extra_id_";
  if (piece.size() < kExtra.size() + 2 || piece.substr(0, kExtra.size()) != kExtra || piece.back() != '>') return false;
  const auto digits = piece.substr(kExtra.size(), piece.size() - kExtra.size() - 1);
  return digits.find_first_not_of("0123456789") == std::string_view::npos;
}

void append_piece(Vocabulary& vocabulary, std::string_view piece, double cost, bool special) {
  for (size_t i = 0; i < piece.size();) {
    if (piece.substr(i, kSpaceMark.size()) == kSpaceMark) {
      vocabulary.bytes += ' ';
      i += kSpaceMark.size();
    } else {
      vocabulary.bytes += piece[i++];
    }
  }
  vocabulary.ends.push_back(static_cast<uint32_t>(vocabulary.bytes.size()));
  vocabulary.costs.push_back(cost);
  vocabulary.special.push_back(special ? 1 : 0);
}

// `first_number`: how the file counts its first piece (lines from 1, pieces from 0).
void refuse_duplicates(const Vocabulary& vocabulary, const std::string& where, const char* unit, size_t first_number) {
  std::vector<uint32_t> order(vocabulary.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const int difference = vocabulary.piece(a).compare(vocabulary.piece(b));
    return difference != 0 ? difference < 0 : a < b;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (vocabulary.piece(order[i]) == vocabulary.piece(order[i - 1])) {
      fail<DataError>(where, ": ", unit, " ", order[i] + first_number, ": piece \"",
                      printable(vocabulary.piece(order[i])), "\" is there already, at ", unit, " ",
                      order[i - 1] + first_number);
    }
  }
}

// Rounds to 5 decimals the way a text file with 5 decimals does.
double rounded_score(float score) {
  char text[64];
  const auto written =
      std::to_chars(text, text + sizeof(text), static_cast<double>(score), std::chars_format::fixed, 5);
  double value = 0;
  std::from_chars(text, written.ptr, value);
  return value;
}

}  // namespace

Vocabulary read_vocab(const std::filesystem::path& file) {
  return parse_vocab(read_text_file(file, kMaxVocabularyBytes), printable(file.string(), 1000));
}

Vocabulary parse_vocab(std::string_view text, const std::string& where) {
  if (text.size() > kMaxVocabularyBytes) fail<DataError>(where, ": more than ", kMaxVocabularyBytes, " bytes");
  Vocabulary vocabulary;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const auto line = trim_right(text.substr(begin, end - begin));
    begin = end + 1;
    ++line_number;
    const size_t tab = line.find('\t');
    if (tab == std::string_view::npos || line.find('\t', tab + 1) != std::string_view::npos) {
      fail<DataError>(where, ": line ", line_number, ": expected a piece, a tab and a score; found \"",
                      printable(line, 80), "\"");
    }
    const auto piece = line.substr(0, tab);
    auto digits = line.substr(tab + 1);
    if (digits.size() > 1 && digits[0] == '+') digits.remove_prefix(1);
    double score = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), score);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() || !std::isfinite(score)) {
      fail<DataError>(where, ": line ", line_number, ": \"", printable(digits, 80), "\" is not a number");
    }
    if (score > 0) {
      fail<DataError>(where, ": line ", line_number, ": the score ", printable(digits, 80),
                      " is positive; scores are logarithms of probabilities");
    }
    if (piece.empty()) fail<DataError>(where, ": line ", line_number, ": the piece is empty");
    if (piece.size() > kMaxPieceBytes) {
      fail<DataError>(where, ": line ", line_number, ": the piece has ", piece.size(), " bytes, more than ",
                      kMaxPieceBytes);
    }
    if (vocabulary.size() >= kMaxPieces) fail<DataError>(where, ": more than ", kMaxPieces, " pieces");
    append_piece(vocabulary, piece, -score, is_special(piece));
  }
  if (vocabulary.size() == 0) fail<DataError>(where, ": is empty; expected lines of a piece, a tab and a score");
  refuse_duplicates(vocabulary, where, "line", 1);
  return vocabulary;
}

std::string vocab_text(const Vocabulary& vocabulary) {
  std::string text;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const auto piece = vocabulary.piece(id);
    for (size_t i = 0; i < piece.size();) {
      const size_t length = utf8_length(piece.substr(i, 4));
      if (length == 0 || piece[i] == '\t' || piece[i] == '\n' || piece[i] == '\0') {
        fail<ConfigError>("the vocabulary's piece ", id, " \"", printable(piece),
                          "\" can't be kept in a checkpoint: it is no line of text");
      }
      text += piece[i] == ' ' ? kSpaceMark : piece.substr(i, length);
      i += length;
    }
    char score[64];
    const double value = vocabulary.costs[id] == 0 ? 0 : -vocabulary.costs[id];
    const auto written = std::to_chars(score, score + sizeof(score), value);
    text += '\t';
    text.append(score, written.ptr);
    text += '\n';
  }
  return text;
}

Vocabulary vocabulary_from_spiece(const std::filesystem::path& file) {
  const SpieceModel model = read_spiece_model(file);
  const std::string where = printable(file.string(), 1000);
  Vocabulary vocabulary;
  bool has_extra_ids = false;
  for (const auto& piece : model.pieces) {
    if (piece.text.size() > kMaxPieceBytes) {
      fail<DataError>(where, ": piece ", vocabulary.size(), " has ", piece.text.size(), " bytes, more than ",
                      kMaxPieceBytes);
    }
    if (piece.score > 0) {
      fail<DataError>(where, ": piece ", vocabulary.size(), " has the score ", piece.score,
                      "; scores are logarithms of probabilities and not positive");
    }
    const bool special =
        piece.type == SpieceType::kControl || piece.type == SpieceType::kUnknown || is_special(piece.text);
    has_extra_ids = has_extra_ids || piece.text == "<extra_id_0>";
    append_piece(vocabulary, piece.text, -rounded_score(piece.score), special);
  }
  for (int number = 99; number >= 0 && !has_extra_ids; --number) {
    append_piece(vocabulary, concat("<extra_id_", number, ">"), 0, true);
  }
  refuse_duplicates(vocabulary, where, "piece", 0);
  return vocabulary;
}

}  // namespace mdm
