#include "mdm/evaluation/clip_tokenizer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>

#include "evaluation/unicode.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr size_t kMostFileBytes = size_t{256} << 20;
constexpr int64_t kMostWords = 1 << 24;
constexpr const char* kWordEnd = "</w>";
constexpr std::string_view kStart = "<|startoftext|>", kEnd = "<|endoftext|>";

std::string shown(const fs::path& path) { return printable(path.string(), 1000); }

std::string text_of(const fs::path& file) {
  try {
    return read_text_file(file, kMostFileBytes);
  } catch (const DataError& error) {
    fail<ConfigError>(error.what());
  }
}

// The characters that stand for the 256 bytes in the vocabulary: printable Latin-1 for itself, the others from U+0100.
std::array<std::string, 256> byte_characters() {
  std::array<std::string, 256> characters;
  int32_t next = 0x100;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    evaluation::append_utf8(itself ? byte : next++, characters[static_cast<size_t>(byte)]);
  }
  return characters;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

struct ClipTokenizer::Impl {
  struct Merge {
    int32_t rank, joined;
  };
  std::unordered_map<std::string, int32_t> words;
  std::unordered_map<uint64_t, Merge> merges;
  std::array<std::string, 256> bytes = byte_characters();
  int32_t start = 0, end = 0;
  int64_t size = 0;  // the largest id, and one

  int32_t id_of(const std::string& word) const {
    const auto found = words.find(word);
    return found == words.end() ? end : found->second;  // the end token stands for what is unknown
  }

  void add_words(const Json& vocabulary, const std::string& where) {
    if (!vocabulary.is_object() || vocabulary.empty()) fail<ConfigError>(where, ": is no vocabulary of words and ids");
    for (const auto& [word, id] : vocabulary.items()) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMostWords) {
        fail<ConfigError>(where, ": the id of '", printable(word), "' is no number below ", kMostWords);
      }
      words[word] = id.get<int32_t>();
      size = std::max<int64_t>(size, id.get<int64_t>() + 1);
    }
  }

  void add_merge(const std::string& left, const std::string& right, const std::string& where) {
    const auto known = [&](const std::string& word) {
      const auto found = words.find(word);
      if (found == words.end())
        fail<ConfigError>(where, ": joins '", printable(word), "', which is not in the vocabulary");
      return found->second;
    };
    const Merge merge{static_cast<int32_t>(merges.size()), known(left + right)};
    merges.emplace(pair_key(known(left), known(right)), merge);
  }

  void add_merge_line(const std::string& line, const std::string& where) {
    const size_t space = line.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string::npos) {
      fail<ConfigError>(where, ": '", printable(line, 80), "' is not a pair of two pieces");
    }
    add_merge(line.substr(0, space), line.substr(space + 1), where);
  }

  void read_merges(const fs::path& file) {
    const std::string text = text_of(file);
    for (size_t at = 0; at < text.size();) {
      const size_t stop = std::min(text.find('\n', at), text.size());
      std::string line = text.substr(at, stop - at);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty() && !(at == 0 && line.compare(0, 9, "#version:") == 0)) add_merge_line(line, shown(file));
      at = stop + 1;
    }
  }

  void read_tokenizer_json(const fs::path& file) {
    const std::string where = shown(file);
    const Json all = Json::parse(text_of(file), nullptr, false);
    if (!all.is_object() || !all.contains("model") || !all["model"].is_object())
      fail<ConfigError>(where, ": has no model");
    const Json& model = all["model"];
    const std::string type =
        model.contains("type") && model["type"].is_string() ? model["type"].get<std::string>() : "";
    const std::string suffix = model.contains("end_of_word_suffix") && model["end_of_word_suffix"].is_string()
                                   ? model["end_of_word_suffix"].get<std::string>()
                                   : "";
    if (type != "BPE" || suffix != kWordEnd || !model.contains("vocab") || !model.contains("merges")) {
      fail<ConfigError>(where, ": is no tokenizer of CLIP, which joins pairs of bytes (BPE) with the word end ",
                        kWordEnd);
    }
    add_words(model["vocab"], where);
    for (const Json& merge : model["merges"]) {
      if (merge.is_string()) {
        add_merge_line(merge.get<std::string>(), where);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        add_merge(merge[0].get<std::string>(), merge[1].get<std::string>(), where);
      } else {
        fail<ConfigError>(where, ": holds a merge that is no pair");
      }
    }
  }

  void find_special(const std::string& where) {
    for (const auto& [name, id] : {std::make_pair(kStart, &start), std::make_pair(kEnd, &end)}) {
      const auto found = words.find(std::string(name));
      if (found == words.end()) fail<ConfigError>(where, ": the vocabulary has no ", name);
      *id = found->second;
    }
  }

  void encode_piece(const int32_t* codes, size_t count, std::vector<int32_t>& out) const;
  void encode_text(std::string_view text, std::vector<int32_t>& out) const;
};

// Byte pairs of one piece, joined by rank, the leftmost first.
void ClipTokenizer::Impl::encode_piece(const int32_t* codes, size_t count, std::vector<int32_t>& out) const {
  std::string utf8;
  for (size_t i = 0; i < count; ++i) evaluation::append_utf8(codes[i], utf8);
  struct Symbol {
    int32_t id;
    size_t previous, next;
  };
  std::vector<Symbol> symbols;
  for (size_t i = 0; i < utf8.size(); ++i) {
    const std::string& character = bytes[static_cast<uint8_t>(utf8[i])];
    symbols.push_back({id_of(i + 1 == utf8.size() ? character + kWordEnd : character), i - 1, i + 1});
  }
  constexpr auto kNone = static_cast<size_t>(-1);
  symbols.back().next = kNone;
  using Candidate = std::tuple<int32_t, size_t, int32_t, int32_t>;  // rank, place, the two
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto propose = [&](size_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const int32_t a = symbols[left].id, b = symbols[symbols[left].next].id;
    const auto merge = merges.find(pair_key(a, b));
    if (merge != merges.end()) queue.emplace(merge->second.rank, left, a, b);
  };
  for (size_t i = 0; i < symbols.size(); ++i) propose(i);
  constexpr int32_t kGone = -1;
  while (!queue.empty()) {
    const auto [rank, left, a, b] = queue.top();
    queue.pop();
    const size_t right = symbols[left].next;
    if (symbols[left].id != a || right == kNone || symbols[right].id != b) continue;  // joined otherwise meanwhile
    symbols[left].id = merges.at(pair_key(a, b)).joined;
    symbols[right].id = kGone;
    symbols[left].next = symbols[right].next;
    if (symbols[left].next != kNone) symbols[symbols[left].next].previous = left;
    propose(symbols[left].previous);
    propose(left);
  }
  for (size_t i = 0; i != kNone; i = symbols[i].next) out.push_back(symbols[i].id);
}

// Text without special tokens.
void ClipTokenizer::Impl::encode_text(std::string_view text, std::vector<int32_t>& out) const {
  std::vector<int32_t> codes;
  for (const int32_t code : evaluation::composed_code_points(text)) evaluation::append_lower(code, codes);
  const auto contraction = [&](size_t at) -> size_t {
    if (codes[at] != '\'') return 0;
    for (const std::string_view ending : {"s", "t", "re", "ve", "m", "ll", "d"}) {
      if (at + ending.size() < codes.size() &&
          std::equal(ending.begin(), ending.end(), codes.begin() + static_cast<std::ptrdiff_t>(at) + 1)) {
        return ending.size() + 1;
      }
    }
    return 0;
  };
  const auto is_other = [](int32_t code) {
    return !evaluation::is_space(code) && !evaluation::is_letter(code) && !evaluation::is_number(code);
  };
  for (size_t at = 0; at < codes.size();) {
    size_t count = contraction(at);
    if (count == 0 && evaluation::is_space(codes[at])) {
      ++at;
      continue;
    }
    if (count == 0) {
      const auto run = [&](const auto& belongs) {
        while (at + count < codes.size() && belongs(codes[at + count])) ++count;
      };
      if (evaluation::is_letter(codes[at])) {
        run(evaluation::is_letter);
      } else if (evaluation::is_number(codes[at])) {
        count = 1;
      } else {
        run(is_other);
      }
    }
    encode_piece(codes.data() + at, count, out);
    at += count;
  }
}

ClipTokenizer::ClipTokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClipTokenizer::ClipTokenizer(ClipTokenizer&&) noexcept = default;
ClipTokenizer& ClipTokenizer::operator=(ClipTokenizer&&) noexcept = default;
ClipTokenizer::~ClipTokenizer() = default;

ClipTokenizer ClipTokenizer::open(const fs::path& folder) {
  auto impl = std::make_unique<Impl>();
  std::error_code error;
  if (fs::exists(folder / "vocab.json", error) && fs::exists(folder / "merges.txt", error)) {
    impl->add_words(Json::parse(text_of(folder / "vocab.json"), nullptr, false), shown(folder / "vocab.json"));
    impl->read_merges(folder / "merges.txt");
  } else if (fs::exists(folder / "tokenizer.json", error)) {
    impl->read_tokenizer_json(folder / "tokenizer.json");
  } else {
    fail<ConfigError>(shown(folder), ": has no tokenizer: vocab.json and merges.txt, or tokenizer.json");
  }
  impl->find_special(shown(folder));
  return ClipTokenizer(std::move(impl));
}

int64_t ClipTokenizer::vocab_size() const { return impl_->size; }

std::vector<int32_t> ClipTokenizer::encode(std::string_view text, size_t most, bool* cut) const {
  if (text.size() > kMaxCaptionBytes)
    fail<DataError>("a caption has ", text.size(), " bytes, more than ", kMaxCaptionBytes);
  std::vector<int32_t> ids{impl_->start};
  while (!text.empty()) {
    const size_t start = text.find(kStart), end = text.find(kEnd), special = std::min(start, end);
    impl_->encode_text(text.substr(0, special), ids);
    if (special == std::string_view::npos) break;
    ids.push_back(special == start ? impl_->start : impl_->end);
    text.remove_prefix(special + (special == start ? kStart : kEnd).size());
  }
  const bool too_long = ids.size() + 1 > most;
  if (too_long) ids.resize(most - 1);
  if (cut != nullptr) *cut = too_long;
  ids.push_back(impl_->end);
  return ids;
}

}  // namespace mdm
